# Sourced by the checks that need packages `make test` does not install.

# make_environment PYTHON FOLDER ARGUMENT...: a virtual environment with what pip is told to install,
# once.
make_environment() {
  local python=$1 folder=$2
  [ -e "$folder/.ready" ] && return
  "$python" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${@:3}"
  touch "$folder/.ready"
}

# install_wheel FOLDER WORK PREFIX: embedmill as users install it, the wheel alone, in an environment.
install_wheel() {
  PYTHON=$3/python docker/build-wheel.sh "$PWD" "$2/dist"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$2"/dist/*.whl
}
