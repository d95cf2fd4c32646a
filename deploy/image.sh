#!/bin/sh
# Builds the agent's image without an image registry.
#
#   deploy/image.sh fetch DIRECTORY [EXTRA...]          what it is made of: Debian's packages, Python's wheels
#   deploy/image.sh build DIRECTORY IMAGE [EXTRA]       the image, of what is there: nothing is fetched
#
# EXTRA is a file of deploy/requirements (default: base). fetch is for Debian, as root or with user namespaces; it takes
# mmdebstrap and python3-venv, and the machine's own sources of packages where they are Debian 12's. build takes podman.
set -eu

SUITE=bookworm
PYTHON="python3-minimal libpython3-stdlib dash coreutils"

# A tree of files of these packages, unpacked: nothing in the image needs what installing them would do besides.
base() {
	into=$1; shift
	[ "$(cat "$into.packages" 2>/dev/null)" != "$*" ] || return 0
	sources=
	if grep -qs "^VERSION_CODENAME=$SUITE" /etc/os-release; then
		for one in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
			[ -s "$one" ] && sources=$one && break
		done
	fi
	echo "making $into of Debian's packages"
	SOURCE_DATE_EPOCH=0 mmdebstrap --variant=extract --include="$*" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$SUITE" "$into.new.tar" $sources >"$into.log" 2>&1 || { cat "$into.log" >&2; exit 1; }
	mv "$into.new.tar" "$into"
	echo "$*" >"$into.packages"
}

# For this machine's processor, whatever its own Python is.
wheels() {
	into=$1; shift
	mkdir -p "$into"
	set -- build "${@:-base}"
	for one in "$@"; do
		set -- "$@" --requirement "deploy/requirements/$one.txt"
		shift
	done
	processor=$(uname -m)
	echo "fetching wheels to $into"
	"$python" -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
		--implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
		--platform "manylinux_2_28_$processor" --platform "manylinux_2_17_$processor" \
		--platform "manylinux2014_$processor" --dest "$into" "$@"
}

# Has podman know what is in a file, and says how it is called there: after its content, so that another is another.
imported() {
	name=localhost/routable-$(basename "$1" .tar):$(sha256sum "$1" | cut -c 1-16)
	$podman image exists "$name" || $podman import --quiet "$1" "$name" >/dev/null
	echo "$name"
}

image() {
	from=$1 image=$2 extra=${3:-base}
	podman=${PODMAN:-podman}
	commit=$(git rev-parse --short=12 HEAD 2>/dev/null || true)
	[ -z "$commit" ] || git diff --quiet HEAD 2>/dev/null || commit=$commit.changed
	# Always the same time: the same commit, of the same packages, is the same image.
	$podman build --quiet --layers=false --timestamp=0 --pull=never \
		--file deploy/Containerfile --ignorefile deploy/Containerfile.ignore --build-context "wheels=$from/wheels" \
		--build-arg "BUILD=$(imported "$from/build.tar")" --build-arg "BASE=$(imported "$from/base.tar")" \
		--build-arg "EXTRA=$extra" --build-arg "COMMIT=$commit" --tag "$image" $BUILD_OPTIONS .
}

python=$(realpath --no-symlinks "$(command -v "${PYTHON3:-python3}")")
verb=${1:-} directory=${2:-}
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
shift 2
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
cd "$(dirname "$0")/.."
BUILD_OPTIONS=${BUILD_OPTIONS:---network=none}
case $verb in
fetch)
	base "$directory/base.tar" $PYTHON nftables iptables bird2 libstdc++6
	base "$directory/build.tar" $PYTHON gcc libc6-dev
	wheels "$directory/wheels" "$@"
	;;
build) image "$directory" "$@" ;;
*) echo "no such verb: $verb" >&2; exit 2 ;;
esac
