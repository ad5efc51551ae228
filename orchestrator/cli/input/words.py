"""The words of other tools for what spell does: of docker, Slurm, SkyPilot, Weights & Biases, git, and of spell of 2019.

Each table maps ours to theirs. A word may lead to several of ours; those that the command has are suggested.
"""

from __future__ import annotations

VERBS = {
    "run": "cast create execute go launch new sbatch srun start submit train up",
    "rerun": "again clone-run repeat restart resubmit resume retry requeue",
    "logs": "log less more output tail stdout",
    "logs -f": "attach fg follow view",
    "ps": "history jobs list queue runs sacct squeue status",
    "list": "all ls ps status",
    "search": "find grep",
    "info": "describe details get inspect scontrol show",
    "exec": "bash connect debug enter shell ssh sh",
    "stats": "gpu nvidia-smi usage",
    "top": "dashboard htop monitor ui watch",
    "stop": "abort cancel end halt interrupt quit scancel",
    "kill": "destroy terminate",
    "label": "tag tags",
    "archive": "delete hide remove",
    "project": "experiment experiments group projects",
    "workflow": "chain compose dag pipeline workflows",
    "hyper": "hyperopt optimize searches sweep sweeps trials tune",
    "hyper grid": "grid",
    "hyper random": "random",
    "hyper bayesian": "agent bayes bayesian optuna",
    "secret": "env key keys password secrets token tokens",
    "diff": "compare",
    "lineage": "graph provenance tree",
    "verify": "checksum fsck",
    "export": "archive-run save",
    "ls": "artifact artifacts dir files model models outputs resources results",
    "cat": "head print",
    "cp": "copy download fetch get pull restore rsync scp",
    "upload": "data dataset datasets import push put sync",
    "rm": "delete del remove unset",
    "link": "alias ln",
    "metrics": "chart metric plot tensorboard",
    "machine-types": "check-gpus cluster gpus instances machines nodes resources show-gpus sinfo",
    "image": "bake commit images",
    "build": "bake create make",
    "server": "api daemon spelld",
    "server stop": "down shutdown teardown",
    "doctor": "check diagnose test",
    "gc": "clean cleanup df du prune purge",
    "completion": "autocomplete completions",
    "create": "add init make new",
    "set": "add create put new update",
    "edit": "rename set update",
    "add-runs": "add",
    "start": "begin up",
    "--help": "help man usage",
    "--version": "version",
}

OPTIONS = {
    "--background": "async bg d daemon detach detached no-follow no-wait nohup",
    "--mount": "bind data dataset file-mounts mounts volume volumes",
    "--pip": "install module package packages pkg pkgs pypi",
    "--pip-req": "r req reqs requirement requirements requirements-file",
    "--apt": "apt-get deb",
    "--from": "base base-image container container-image docker image img",
    "--python": "py python-version pyversion",
    "--framework": "frameworks",
    "-t gpu": "accelerator accelerators cuda device gpu gpus gpus-per-node gpus-per-task gres num-gpus",
    "--machine-type": (
        "cores cpu cpus cpus-per-task instance instance-type machine mem mem-per-cpu memory partition pool queue "
        "resources shm-size"
    ),
    "--env": "env-var environment envs export set-env variable",
    "--secret": "password secrets token",
    "--label": "label-add labels tag tags",
    "--name": "job-name n run-name title",
    "--description": "comment desc m message note notes",
    "--project": "experiment group workspace",
    "--param": "arg args define parameter parameters params range search-space space",
    "--timeout": "max-time time time-limit walltime",
    "--retries": "max-restarts max-retries requeue restart retry",
    "--stop-condition": "early-stop early-stopping until",
    "--no-output-timeout": "idle idle-timeout",
    "--notify": "callback mail-type mail-user webhook",
    "--ignore": "exclude no-clobber skip-existing",
    "--github-url": "clone git git-url repo repository url",
    "--github-ref": "branch git-ref",
    "--commit-ref": "commit ref rev revision sha",
    "--include-untracked": "all-files include-uncommitted uncommitted untracked",
    "--file": "config job job-file spec yaml",
    "--from-file": "load",
    "--save-command": "save",
    "--reuse": "cache cached idempotent",
    "--fresh": "no-cache no-reuse rerun",
    "--caches": "cache-dir caching",
    "--executor": "backend engine runtime",
    "--network": "net",
    "--force": "assume-yes no-prompt overwrite y yes",
    "--follow": "F live stream w watch",
    "--state": "filter status",
    "-n": "count last limit lines max number tail",
    "--json": "format o output",
    "--all": "everything",
    "--verbose": "full l long no-trunc wide",
    "--since": "after start-time",
    "--search": "grep match pattern regex",
    "--context": "A B after-context before-context",
    "--sort": "order order-by sort-by",
    "--timestamps": "dates time times",
    "--num-runs": "max-trials n-trials num-samples num-trials samples trials",
    "--parallel-runs": "concurrency j jobs max-parallel n-jobs parallel workers",
    "--direction": "goal max maximize min minimize mode",
    "--metric": "monitor objective",
    "--output": "dest destination dir out",
    "--older-than": "age until",
    "--dry-run": "dry simulate",
    "--quiet": "silent",
}

SAYS = {
    "login logout register signup whoami auth user users": (
        "Nobody logs in: the server of your home is yours, and starts by itself."
    ),
    "init setup install configure": "Nothing has to be set up. Put `spell run` in front of your command.",
    "config settings": "The configuration is the file config.toml in your home, which `spell server status` shows.",
    "add checkout clone branch": (
        "A run gets the code as it is on the disk; --commit-ref takes another commit, --github-url another repository."
    ),
    "update upgrade": "To upgrade spell, use pip; then: spell server stop",
    "pause suspend hold": "A run cannot be paused. End it and keep its outputs with: spell stop RUN; cast it again with: spell rerun RUN",
    "build": "Nothing is built beforehand: spell run --pip, --apt and --from make the environment. To keep one: spell image build",
    "events": "What happens to a run is in its log and details: spell logs -v RUN, spell info RUN; what is active: spell top",
    "restart reload": "Type `spell server stop`; any command starts it again.",
    "jupyter notebook lab serve deploy": "spell has no notebooks and serves no models.",
}
"""What to say where spell has no verb for a word."""

OPTION_SAYS = {
    "env-file": "There is no such option. Give each variable with -e NAME=VALUE, and a secret value with --secret NAME.",
    "rm": "Leave it out: of a run only its log, records and outputs stay.",
    "i ti it t tty interactive pty": "A run has no terminal. Open a shell in its container: spell exec RUN",
    "w workdir chdir cwd working-dir": (
        "A run starts in the folder that it is cast from, with a copy of the code: change the folder before."
    ),
    "P port ports publish expose": "spell opens no ports of a run.",
    "u uid user privileged cap-add": "A container runs as you, without privileges.",
    "N nodes ntasks num-nodes distributed array": "A run has one machine. For many runs see: spell hyper -h",
}
"""What to say where a verb that casts runs has no option for a word."""
