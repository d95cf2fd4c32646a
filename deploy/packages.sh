#!/bin/sh
# Sees to it that the Debian packages named are there: says which are missing, and installs them as root or with a
# sudo that does not ask. Without either it names them and fails, unless the first word is --optional.
#
#   packages.sh [--optional] PACKAGE...
#   packages.sh --extract DIRECTORY [--suite SUITE] PACKAGE...
#
# --extract is for what would start a service where it is installed. The packages are unpacked below DIRECTORY, and
# `DIRECTORY/run COMMAND...` runs a command of theirs. Nothing is installed and none of their scripts runs, so an
# ordinary user can do it, too. Of what they depend on, the programs and libraries that this machine does not have are
# unpacked with them; what it has is used as it is, and what is for every architecture alike (data, a page for a
# browser, what install scripts call) is left out: who wants that names it. Once unpacked they stay as they are.
# With --suite the packages are those of another release of Debian, such as testing, and nothing is unpacked with them:
# that release's libraries are not for this machine's programs. From a machine that has no Debian mirror nothing is had.
set -eu

# Which of the packages were not unpacked yet.
unstamped() {
	for package in "$@"; do
		[ -e "$directory/.packages/$package" ] || echo "$package"
	done
}

# Downloads the packages and what they need into the directory we are in. Words for apt-get are in $apt.
download() {
	# shellcheck disable=SC2086 # words are meant
	[ -z "$suite" ] || { apt-get $apt --quiet --quiet download "$@"; return; }
	# shellcheck disable=SC2086 # words are meant
	needed=$(apt-get $apt --simulate --no-install-recommends install "$@") || return
	needed=$(echo "$needed" | awk '/^Inst [^ ]+ \(/ && !/\[all\]\)/ { print $2 }')
	# shellcheck disable=SC2046,SC2086
	apt-get $apt --quiet --quiet download $(printf '%s\n' "$@" $needed | sort -u)
}

extract() {
	mkdir -p "$directory/.packages"
	cat >"$directory/run" <<-'END'
		#!/bin/sh
		# Runs a command of the packages unpacked here; of those that are not here, the machine's.
		here=$(cd "$(dirname "$0")" && pwd)
		export PATH="$here/usr/sbin:$here/usr/bin:$here/sbin:$here/bin:$PATH"
		for one in "$here"/lib "$here"/lib/*-linux-* "$here"/usr/lib "$here"/usr/lib/*-linux-*; do
			[ ! -d "$one" ] || LD_LIBRARY_PATH="$one${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
		done
		[ -z "${LD_LIBRARY_PATH-}" ] || export LD_LIBRARY_PATH
		exec "$@"
	END
	chmod 755 "$directory/run"
	missing=$(unstamped "$@")
	[ -n "$missing" ] || return 0
	if ! command -v apt-get >/dev/null; then
		echo "this is no Debian: see that what these packages hold is there:" $missing >&2
		return 0
	fi
	mirror=
	[ -z "$suite" ] || mirror=$(apt-get --print-uris update | sed -n "s|^'\(.*/debian\)/*/dists/.*/main/binary-.*|\1|p" | head -n 1)
	[ -z "$suite" ] || [ -n "$mirror" ] || {
		echo "no mirror of Debian is known here: see that what these packages of $suite hold is there:" $missing >&2
		return 0
	}
	echo "unpacking the Debian packages into $directory:" $missing
	directory=$(cd "$directory" && pwd)
	place=$(mktemp -d "$directory/.download.XXXXXX")
	trap 'rm -rf "$place"' EXIT
	mkdir -p "$place/lists/partial" "$place/debs"
	cd "$place/debs"
	apt="-o APT::Sandbox::User=root"
	if [ -n "$suite" ]; then
		keys=/usr/share/keyrings/debian-archive-keyring.gpg signed=
		[ ! -e $keys ] || signed="[signed-by=$keys]"
		echo "deb $signed $mirror $suite main" >"$place/sources.list"
		apt="$apt -o Dir::Etc::SourceList=$place/sources.list -o Dir::Etc::SourceParts=/dev/null"
	fi
	# The machine's own lists of packages may be missing or old, and are root's to renew: then lists of our own.
	# shellcheck disable=SC2086
	download $missing >/dev/null 2>&1 || {
		apt="$apt -o Dir::State::Lists=$place/lists -o Dir::Cache=$place"
		apt-get $apt --quiet --quiet update
		download $missing
	}
	for package in *.deb; do
		dpkg-deb --extract "$package" "$directory"
	done
	for package in $missing; do
		: >"$directory/.packages/$package"
	done
}

if [ "$1" = --extract ]; then
	directory=$2 suite=
	shift 2
	[ "$1" != --suite ] || { suite=$2; shift 2; }
	extract "$@"
	exit
fi

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
