#!/usr/bin/env bash
# Version:        click 8.5.1
# Behaviour:      A flag with a `flag_value` ("fast") and an environment variable gets the string "False" when the
#                 variable says that it is off (false, 0, no, off). That string is true for every `if`, so the feature
#                 is switched on. With true or 1 the flag gets "fast".
# Expectation:    False: a comment in `Option.value_from_envvar` says that "a falsy reading produces False", and a
#                 flag without `flag_value` gets it from the same words. The type of the option, guessed from "fast",
#                 then makes a string of it.
# Whom it hurts:  Everyone who sets MODE=0 or MODE=false in a container or a CI job to make sure that a flag is off.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check click==8.5.1

cat >program.py <<'PYTHON'
import click


@click.command()
@click.option("--fast", "mode", is_flag=True, flag_value="fast", envvar="MODE")
@click.option("--plain", is_flag=True, envvar="MODE")
def program(mode, plain):
    click.echo(f"{mode!r:8} is {'on' if mode else 'off':4} without flag_value: {plain!r}")


program()
PYTHON

printf '%-14s %s\n' "(no variable)" "$(venv/bin/python program.py)"
printf '%-14s %s\n' "--fast" "$(venv/bin/python program.py --fast)"

so=0
for word in false 0 no off; do
    said=$(MODE=$word venv/bin/python program.py)
    printf '%-14s %s\n' "MODE=$word" "$said"
    [ "$said" = "'False'  is on   without flag_value: False" ] || so=1
done
for word in true 1; do
    said=$(MODE=$word venv/bin/python program.py)
    printf '%-14s %s\n' "MODE=$word" "$said"
    [ "$said" = "'fast'   is on   without flag_value: True" ] || so=1
done

if [ "$so" != 0 ]; then
    echo "VERDICT: changed"
    exit 1
fi
echo 'VERDICT: still so: "off" in the variable switches the flag on'
