"""Reads the command line, the files it names and the code of the folder, and makes specs of them.

options        the options of verbs that cast runs
command_files  --from-file and --save-command
commanding     which words are the command's, and the line that its shell reads
hints          hints for misspelled verbs and options
words          the words of other tools for our verbs and options
spec           makes a spec of options and a job file
durations      durations as values of options
pasted         refuses typographic dashes and quotes
empty          refuses empty values
envfile        reads files of variables
requirements   reads requirement files
editables      finds projects of the code that are to be installed editable
environment    gives a spec the environment that its code says
capture        captures the code, and warns about missing files
virtualenv     takes the packages of a virtual environment
ignored        finds files that a command names and its run will not have
complete       names the completions of options
completions    asks the server for their values
"""
