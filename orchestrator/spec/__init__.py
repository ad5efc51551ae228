"""The specs of runs, workflows and searches: their files and their checks.

run           the spec of a run
fields        the table of its fields
names         checks names of runs, labels, projects, aliases and secrets
type_checks   checks the types of what a program gives
mounts        mounts of a run
variables     variables of a run that cannot have any value
durations     durations
sizes         sizes
conditions    stop conditions
pasted        typographic dashes and quotes
texts         decodes files
requirements  reads the lines of requirement files
redaction     hides values and credentials
yamlfile      YAML files, as nodes with lines
jobfile       a spec in YAML
sbatch        a batch script of Slurm as a spec
workflow      the spec of a workflow
workflowfile  the spec of a workflow in YAML
search        the spec of a search
validate      checks specs that the server receives
filters       filters and order of lists of runs
"""
