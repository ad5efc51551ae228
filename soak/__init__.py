"""A random-fault run: a home at work, while at random moments everything that can die is killed.

`python -m soak --kills 1000 --seed 7` casts runs as a person does, kills at random moments, and then checks each run: its
state, its lines, its outputs and their hashes, and that nothing is lost, doubled, stuck or left. docs/reliability.md tells
what is killed and what must hold. The seed decides what is cast, stopped, killed and broken, in which order and after which pauses.

plan     draws what is cast and what is broken from the seed
place    the home in which it happens, with a disk that can be filled and a clock that can be set
people   cast runs by the command line, and ask for their end
faults   find a victim of each kind, and kill it
checks   what must hold afterwards
"""
