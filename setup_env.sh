#!/usr/bin/env bash
# Set ThermoDL up on Linux and macOS, from any folder:
#
#   bash setup_env.sh         make .venv, with this source installed for development
#   bash setup_env.sh demo    the same, then `thermodl demo`
#   bash setup_env.sh test    install as a user would, then run every check that CI runs
#
# PYTHON=/path/to/python chooses the interpreter. Running it again is quick and harmless; what an interrupted run left
# behind is made anew. Everything stays in this folder, except pip's own download cache and, for `test` only, Chromium
# and a CJK font where the machine has none. Kept to what the bash 3.2 of macOS understands.
set -euo pipefail

unset CDPATH PYTHONPATH PYTHONHOME
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
root=$(pwd -P)
venv=.venv
log=.venv/setup.log
beat=
told=

fail() { # message, exit code
  told=yes
  printf 'setup_env.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

heading() {
  printf '\n== %s\n' "$1"
}

finish() {
  local status=$?
  [ -z "$beat" ] || kill "$beat" 2>/dev/null || true
  rm -rf "$venv/tmp" # gigabytes of half-unpacked downloads
  if [ "$status" -ne 0 ] && [ -z "$told" ]; then
    printf 'setup_env.sh: stopped with exit code %s; the last lines of %s say why.\n' "$status" "$log" >&2
  fi
}
trap finish EXIT
trap 'fail "interrupted; run the same command again to go on." 130' INT TERM

# ---- One command, its output in the log, a sign of life here ----

heartbeat() {
  local seconds=0 latest packages
  # The parent is asked for, so that a killed set-up leaves nothing running; sleep must not hold a pipe open.
  while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    seconds=$((seconds + 1))
    [ $((seconds % 10)) -eq 0 ] || continue
    latest=$(grep -E '^ *(Collecting|Downloading|Using cached|Installing|Building|Get:|Unpacking|Setting up)' "$log" |
      tail -n 1 | sed 's/^ *//' | cut -c 1-90) || latest=
    # One line of pip's names all packages that it installs for minutes: count them instead.
    case $latest in
      "Installing collected"*)
        packages=$(find "$venv" -maxdepth 4 -name '*.dist-info' 2>/dev/null | wc -l) || packages=0
        latest="$((packages)) packages installed"
        ;;
    esac
    printf '   %4d s  %s\n' "$seconds" "$latest"
  done
}

logged() { # command...
  local status=0
  printf '\n$ %s\n' "$*" >>"$log"
  section=$(($(wc -l <"$log") + 1))
  heartbeat &
  beat=$!
  # The command stays in the foreground: bash lets background commands ignore Ctrl-C.
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  kill "$beat" 2>/dev/null || true
  wait "$beat" 2>/dev/null || true
  beat=
  return "$status"
}

log_says() { # pattern; looks only at what the last logged command wrote
  tail -n "+$section" "$log" | grep -iE "$1" >/dev/null
}

explain() { # what was being done; ends with the reason in one sentence
  local missing first
  if [ "$(free_kilobytes)" -lt 100000 ] || log_says 'no space left on device|errno 28|quota exceeded'; then
    fail "the disk got full while $1; free about 10 GB and run the same command again (log: $log)."
  fi
  # pip downloads everything before it changes anything: what is installed is whole, only a full disk or a kill breaks it.
  rm -f "$venv/.unfinished"
  if log_says 'connection|name resolution|getaddrinfo|timed out|timeouterror|proxyerror|sslerror|unreachable|http error'; then
    fail "a download failed while $1; check the network or the proxy and run the same command again (log: $log)."
  fi
  missing=$(tail -n "+$section" "$log" | sed -n 's/.*No matching distribution found for \([^ ]*\).*/\1/p' | head -n 1)
  if [ -n "$missing" ]; then
    fail "pip finds no $missing for Python $version here; try another one, as in PYTHON=python3.12 bash setup_env.sh (log: $log)."
  fi
  first=$(tail -n "+$section" "$log" | grep -i 'error' | head -n 1 | cut -c 1-160) || first=
  fail "an error came up while $1: ${first:-no reason given} (log: $log)."
}

# ---- What the machine offers ----

find_python() { # sets python and version
  local candidate old='' bare=''
  local probe='import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))'
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3 python; fi
  for candidate; do
    # Started, not looked up: a shim may be on the PATH for a version that is not there.
    if version=$("$candidate" -c "$probe" 2>/dev/null </dev/null); then
      python=$candidate
      if "$candidate" -c 'import ensurepip, venv' 2>/dev/null </dev/null; then return; fi
      bare=${bare:-$candidate}
    elif [ -n "$version" ]; then
      old="$old $candidate ($version)"
    fi
  done
  if [ -n "$bare" ]; then
    fail "$bare has no venv module; install it (Debian and Ubuntu: apt install python3-venv) or set PYTHON=/path/to/another/python."
  elif [ -n "$old" ]; then
    fail "Python 3.11 or newer is needed, found only$old; install a newer one or set PYTHON=/path/to/python."
  elif [ -n "${PYTHON:-}" ]; then
    fail "PYTHON=$PYTHON does not start; set it to a Python 3.11 or newer, or unset it."
  fi
  fail "no Python was found; install Python 3.11 or newer (https://www.python.org) or set PYTHON=/path/to/python."
}

free_kilobytes() {
  local free
  # The column before the percentage, since a name in the first column may hold spaces.
  free=$(df -Pk . 2>/dev/null | awk 'NR > 1 { for (i = 2; i <= NF; i++) if ($i ~ /%$/) { print $(i - 1); exit } }') || free=
  case $free in '' | *[!0-9]*) free=1000000000 ;; esac # an unreadable df is no reason to stop
  printf '%s' "$free"
}

check_space() { # GB
  local free
  free=$(free_kilobytes)
  [ "$free" -ge $(($1 * 1000000)) ] ||
    fail "the disk has $((free / 1000000)).$((free / 100000 % 10)) GB free and about $1 GB are needed; free some and run the same command again."
}

# ---- A virtual environment and what is in it ----

venv_version() { # prints the version of a usable environment, fails for any other
  # A folder that was moved has the old place in every script of its environment.
  [ ! -e "$venv/.unfinished" ] && [ "$(cat "$venv/.root" 2>/dev/null || printf '%s' "$root")" = "$root" ] &&
    "$venv/bin/python" -c 'import pip, sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null </dev/null
}

make_venv() { # GB that are needed; sets version
  if version=$(venv_version); then
    if [ -z "${PYTHON:-}" ]; then return; fi
    local there=$version
    find_python
    if [ "$version" = "$there" ]; then return; fi
  fi
  find_python
  if [ -e "$venv" ] || [ -L "$venv" ]; then
    heading "Removing $venv, which is unfinished or of another Python"
    rm -rf "$venv" 2>/dev/null ||
      fail "$venv cannot be removed; end the programs that use it, perhaps an earlier set-up, and run the same command again."
  fi
  check_space "$1"
  heading "Making $venv with Python $version"
  mkdir -p "$venv" .venv 2>/dev/null || fail "nothing can be written in $root; check its permissions and the free space."
  touch "$venv/.unfinished" "$log"
  printf '*\n' >"$venv/.gitignore"
  printf '%s' "$root" >"$venv/.root"
  logged "$python" -m venv "$venv" || explain "making $venv"
}

pip_install() { # arguments of pip install
  # Gigabytes are unpacked in TMPDIR, and /tmp is often a small memory disk.
  TMPDIR=$root/$venv/tmp "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off "$@"
}

fingerprint() {
  "$venv/bin/python" -c 'import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest()[:16], "%d.%d" % sys.version_info[:2])'
}

install() { # contents (for the stamp), editable or normal, requirements...
  local contents=$1 form=$2 stamp wanted
  shift 2
  wanted="$(fingerprint) $contents"
  stamp=$(cat "$venv/stamp" 2>/dev/null) || stamp=
  # setuptools packs whatever an earlier build left there, also modules that no longer exist.
  rm -rf build/lib build/bdist.*
  mkdir -p "$venv/tmp"
  touch "$venv/.unfinished"
  case "$stamp " in
    # An environment with more in it ("all dev") will do where less is wanted ("all").
    "$wanted "*) refresh "$form" ;;
    *)
      install_all "$form" "$@"
      printf '%s' "$wanted" >"$venv/stamp"
      ;;
  esac
  rm -rf "$venv/tmp" "$venv/.unfinished"
}

install_all() { # editable or normal, requirements...
  local form=$1
  shift
  heading "Installing $* in $venv (minutes the first time)"
  rm -f "$venv/stamp"
  # setuptools stays, so that a refresh needs neither the network nor a build environment; older pip knows no groups.
  logged pip_install --upgrade 'pip>=25.1' 'setuptools>=77' || explain "updating pip in $venv"
  # Type checkers follow only the strict form of an editable installation.
  if [ "$form" = editable ]; then set -- --config-settings editable_mode=strict -e "$@"; fi
  logged pip_install "$@" || explain "installing the packages in $venv"
}

refresh() { # editable or normal
  heading "Refreshing thermodl in $venv"
  if [ "$1" = editable ]; then set -- --config-settings editable_mode=strict -e .; else set -- .; fi
  logged pip_install --no-deps --no-build-isolation --force-reinstall "$@" || explain "refreshing thermodl in $venv"
}

# ---- What only the tests need: Chromium and a CJK font ----

find_browser() { # fails when there is none
  local candidate
  for candidate in chromium chromium-browser google-chrome google-chrome-stable \
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
    candidate=$(command -v "$candidate") || continue
    # Started, because Ubuntu's package is a stub that only names the snap.
    if "$candidate" --version </dev/null >>"$log" 2>&1; then
      export THERMODL_CHROMIUM=$candidate
      return
    fi
  done
  "$venv/bin/python" -c 'import subprocess
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    subprocess.run([playwright.chromium.executable_path, "--version"], check=True)' </dev/null >>"$log" 2>&1
}

find_font() {
  [ "$(uname -s)" = Darwin ] || fc-list :lang=zh 2>/dev/null | grep . >/dev/null
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() { # package
  command -v apt-get >/dev/null && as_root true 2>/dev/null || return 1
  heading "Installing $1 with apt-get"
  logged as_root env DEBIAN_FRONTEND=noninteractive apt-get update || true
  logged as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"
}

get_browser() { # fails when none can be had
  find_browser && return
  # Ubuntu's chromium is the snap, which does not run in containers.
  grep -qi '^ID=ubuntu' /etc/os-release 2>/dev/null || { apt_install chromium && find_browser && return; } || true
  heading "Downloading Chromium with playwright"
  logged "$venv/bin/python" -m playwright install chromium && find_browser
}

prepare_browser() { # sets tests, what pytest is to select
  tests='browser or not browser'
  if ! find_font && ! apt_install fonts-noto-cjk; then
    heading "NO CHINESE FONT: pictures with Chinese text will show boxes; install one such as fonts-noto-cjk"
  fi
  if get_browser; then return; fi
  if [ "${CI:-}" = true ]; then
    fail "the browser tests need a Chromium and none could be installed; install the package chromium (log: $log)."
  fi
  tests='not browser'
  heading "NO CHROMIUM COULD BE HAD: ALL BROWSER TESTS WILL BE SKIPPED; install chromium and run this again (log: $log)"
}

# ---- The checks ----

workers='-n auto --maxprocesses 4 --dist worksteal' # of pytest; one thread each, since there is one for each core

check() { # name, command...
  local name=$1
  shift
  heading "$name"
  if ! "$@" </dev/null; then failed="$failed, $name"; fi
}

run_checks() {
  failed=
  check "ruff format" .venv/bin/ruff format --check .
  check "ruff check" .venv/bin/ruff check .
  check "pyright" .venv/bin/python tests/check_types.py
  check "import contracts" .venv/bin/python tests/check_imports.py
  check "pytest" env OMP_NUM_THREADS=1 .venv/bin/pytest $workers -m "$tests"
}

run_torch_free_checks() {
  venv=.venv-notorch
  # Whoever only analyzes and views runs installs no torch; no test of that part may need it.
  PYTHON=$root/.venv/bin/python make_venv 2
  install "view, tests" normal ".[view]" 'pytest>=8.3' 'pytest-xdist>=3.6' 'hypothesis>=6.100'
  check "there is no torch in $venv" "$venv/bin/python" -c 'import importlib.util, sys
sys.exit("torch is there" if importlib.util.find_spec("torch") else 0)'
  check "pytest without torch" "$venv/bin/pytest" $workers -m "not slow" tests/analyze tests/viewer
  check "thermodl --help without torch" "$venv/bin/thermodl" --help
  check "thermodl ls without torch" "$venv/bin/thermodl" ls
}

# ---- The three ways to call this ----

use_folder_only() {
  # Tools that want a home or a cache get one in here; without a home pip would fill it with gigabytes.
  if [ -z "${HOME:-}" ]; then export HOME=$root/.venv/home PIP_NO_CACHE_DIR=1; fi
  export PYRIGHT_PYTHON_CACHE_DIR=$root/.venv/cache PYRIGHT_PYTHON_ENV_DIR=$root/.venv/node
  # A user's pip settings for everyday use would put the packages elsewhere.
  export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PYTHONUNBUFFERED=1
  unset PIP_TARGET PIP_PREFIX PIP_ROOT
}

set_up() { # contents, editable or normal, requirements...
  local needed=10 # 6.5 GB with the CUDA libraries, and 3 GB of downloads until they are unpacked
  if [ "$(uname -s)" = Darwin ]; then needed=4; fi
  if [ -e "$venv/stamp" ]; then needed=1; fi
  make_venv "$needed"
  : >"$log"
  check_space "$needed"
  install "$@"
}

main() {
  case $(uname -s) in
    MINGW* | MSYS* | CYGWIN*) fail "on Windows use: powershell -ExecutionPolicy Bypass -File setup_env.ps1 ${1:-}" ;;
  esac
  use_folder_only
  case ${1:-} in
    '')
      set_up "all" editable ".[all]"
      heading "Ready after $SECONDS s: source .venv/bin/activate, then thermodl --help"
      ;;
    demo)
      set_up "all" editable ".[all]"
      heading "thermodl demo"
      .venv/bin/thermodl demo || fail "thermodl demo ended with exit code $?; its last lines above say why."
      ;;
    test)
      set_up "all dev" normal ".[all]" --group dev
      prepare_browser
      run_checks
      run_torch_free_checks
      [ -z "$failed" ] || fail "not all checks passed: ${failed#, }; see above."
      heading "All checks passed after $SECONDS s (.venv now holds a copy; bash setup_env.sh makes it follow the source again)"
      ;;
    *) fail "unknown argument '$1'; expected nothing, demo or test." 2 ;;
  esac
}

main "$@"
