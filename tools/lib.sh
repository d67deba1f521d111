# shellcheck shell=bash disable=SC2034
# Functions shared by the scripts beside it: programs that tests need and that
# are not ours are built from the modules pinned here, once for each machine.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/switchboard

say() { printf '%s\n' "$*" >&2; }

# version MODULE PATH prints the version at which tools/MODULE pins PATH.
version() {
	awk -v path="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == path { print $2; exit }' "$here/$1/go.mod"
}

# build MODULE DIR LDFLAGS NAME=PACKAGE...
#
# Builds static programs of tools/MODULE into DIR, unless they are there and
# neither the pins nor the Go version have changed since. One process builds at
# a time; the others wait for it and then find the result.
build() (
	local module=$1 dir=$2 ldflags=$3 stamp want missing='' out
	shift 3
	mkdir -p "$dir"
	stamp=$dir/.$module.stamp
	want=$({ go -C "$here/$module" env GOVERSION GOOS GOARCH; echo "$ldflags $*"; cat "$here/$module"/go.*; } | cksum)
	if command -v flock >/dev/null; then
		exec 9>"$dir/.lock"
		flock 9
	fi
	for out in "$@"; do
		[ -x "$dir/${out%%=*}" ] || missing=${out%%=*}
	done
	if [ -z "$missing" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
		return 0
	fi
	for out in "$@"; do
		build_one "$module" "$dir" "$ldflags" "${out%%=*}" "${out#*=}" 9>&-
	done
	echo "$want" >"$stamp"
)

# build_one builds one program and says every half minute that it still does.
build_one() {
	local module=$1 dir=$2 ldflags=$3 name=$4 package=$5 t0=$SECONDS ticker status=0
	say "tools: building $name, once for this machine ..."
	(
		# Not one sleep of 30: the last one outlives its killed parent.
		while sleep 1; do
			[ $(((SECONDS - t0) % 30)) -ne 0 ] || say "tools: still building $name after $((SECONDS - t0)) s ..."
		done
	) &
	ticker=$!
	# The flags are those of other builds of the same pins, so that they share
	# the Go build cache. Built aside and moved: nobody runs half a program.
	(
		export CGO_ENABLED=0 GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false'
		go -C "$here/$module" build -trimpath -tags '' -ldflags "-s -w $ldflags" -o "$dir/.$name.new" "$package"
	) >&2 </dev/null || status=$?
	kill "$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	if [ "$status" -ne 0 ]; then
		say "tools: $name does not build"
		return "$status"
	fi
	mv -f "$dir/.$name.new" "$dir/$name"
	say "tools: built $name in $((SECONDS - t0)) s"
}
