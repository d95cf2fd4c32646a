#!/bin/sh
# Sees to it that the Debian packages named are there: says which are missing, and installs them as root or with a
# sudo that does not ask. Without either it names them and fails, unless the first word is --optional.
set -eu

optional=false
[ "$1" != --optional ] || { optional=true; shift; }
missing=
for package in "$@"; do
	status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "this is no Debian: see that what these packages hold is there:$missing" >&2
	exit 0
fi
as_root=
if [ "$(id -u)" != 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "missing Debian packages; as root: apt-get install --no-install-recommends$missing" >&2
		$optional
		exit
	fi
	as_root="sudo -n"
fi
echo "installing the Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
install="$as_root apt-get install --quiet --quiet --yes --no-install-recommends"
# shellcheck disable=SC2086 # words are meant
$install $missing >/dev/null 2>&1 || { $as_root apt-get update --quiet --quiet && $install $missing >/dev/null; }
