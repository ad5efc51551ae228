"""What an assistant (a program that writes code, and calls tools) gets of spell.

skill     the page that tells an assistant how to use `spell`, and the folders where assistants look for it
server    `spell mcp`: a Model Context Protocol server over standard input and output
reading   its tools that read
changing  its tools that change something, with `--write`
answers   how much an answer may hold, and how it is cut
"""
