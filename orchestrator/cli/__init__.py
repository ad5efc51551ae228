"""The command line: a module for each verb, or for a few that belong together.

entry       starts `spell`
main        finds the verb; turns an error into a message and an exit code
verbs       the table of all verbs, for `--help`
completion  prints the script of shell completion
run         run
plan        what `spell run --dry-run` shows
ahead       loads modules while a verb waits for git
rerun       rerun
resume      resume, and run --resume
workflows   workflow
searches    hyper
uploads     upload, rm
secrets     secret
ready       what all verbs with the options of a spec do before they cast
kept_secrets  offers to keep secrets of a .env
logs        logs
runs        info, stop, kill, wait
listing     ps, search
top         top
stats       stats
metrics     metrics
exec        exec
ports       port
notebook    notebook
tensorboard  tensorboard
write_back  writes notebooks of a run into the work tree
environments  env
files       ls, cat, cp
compare     diff, verify
lineage     lineage
export      export
tracker_export  its part for other trackers
imports     import
labels      label, archive, unarchive
links       link, unlink
projects    project
images      image
gc          gc
doctor      doctor
assistants  skill, mcp
server      server, machine-types
input/      reads what a person types
output/     shows what happens
"""
