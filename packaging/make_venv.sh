#!/bin/sh
# make_venv.sh FOLDER: a virtual environment with Python 3.11 or newer and pip.
# Does nothing where FOLDER works already. PYTHON=... names the interpreter to use.
set -eu
venv=$1

works() { "$1" -m pip --version >/dev/null 2>&1; }
offers() { "$1" -c "import sys, venv, $2; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; }

if [ -x "$venv/bin/python" ] && works "$venv/bin/python"; then
    exit 0
fi
# By name, and proven by running it: a shim of that name may have no interpreter behind it.
for python in ${PYTHON:-python3.11 python3.12 python3.13 python3 python3.14}; do
    if offers "$python" ensurepip; then
        exec "$python" -m venv --clear "$venv"
    fi
    # Debian ships ensurepip in a package of its own (python3-venv); pip alone does as well.
    if offers "$python" pip; then
        "$python" -m venv --clear --without-pip "$venv"
        exec "$python" -m pip --python "$venv/bin/python" install --quiet pip
    fi
done
echo "make: no Python 3.11 or newer with pip or ensurepip was found. Install one" \
    "(Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2
exit 1
