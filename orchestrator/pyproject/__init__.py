"""Finds what the code of a run says about its environment: its packages, its Python, and what to install editable.

Everything is read from the snapshot, so that it is that of the code that runs. Only `local` reads this machine: for
archives and folders of wheels that files of the work tree name.

resolve       reads the file that was found
find          looks for the file that counts, and remembers what was found in it
asked         what a person asks for
found         what was found
files         the files of a snapshot, as text
lines         requirement lines, and what belongs to them
uv_lock       uv.lock, and the locks of scripts
pylock        pylock.toml
other_locks   poetry.lock, Pipfile.lock, pdm.lock
requirements  requirements.txt
metadata      pyproject.toml without a lock, and what setuptools says
conda         environment.yml
script        inline metadata of a script (PEP 723)
pythons       the version of Python
local         archives and folders of wheels of this machine
platforms     the platform of the lines of a lock
"""
