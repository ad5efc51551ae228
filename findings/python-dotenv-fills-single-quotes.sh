#!/usr/bin/env bash
# Version:        python-dotenv 1.2.4
# Behaviour:      `${A}` is replaced by the value of A also inside single quotes: B='x${A}y' gives the same as B="x${A}y". The parser
#                 keeps no trace of the quotes, so who reads the values cannot tell them apart.
# Expectation:    What stands in single quotes is literal, as it is in the shells that source the same file.
# Whom it hurts:  Who keeps passwords or templates in a .env: one with `${` reaches the program changed, and without a word.
#                 `dotenv_values(interpolate=False)` fills nothing, in double quotes neither.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check python-dotenv==1.2.4
cat >.env <<'VARIABLES'
A=1
B='x${A}y'
C="x${A}y"
VARIABLES

library=$(venv/bin/python -c 'import dotenv; found = dotenv.dotenv_values(".env"); print(found["B"], found["C"])')
shell=$(. ./.env && echo "$B $C")
echo "python-dotenv:   $library"
echo "the shell:       $shell"

# shellcheck disable=SC2016
if [ "$library" = "x1y x1y" ] && [ "$shell" = 'x${A}y x1y' ]; then
    echo "VERDICT: still so: single quotes keep nothing literal"
else
    echo "VERDICT: changed" && exit 1
fi
