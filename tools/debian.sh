# Sourced: a program from Debian's packages in the user's cache folder, by version. Nothing is installed and no root is
# needed.
#
# debian_program NAME SIZE "PROGRAM…" PACKAGE [LIBRARY…]
# prints the folder in which every PROGRAM (a path in it) is; fetches PACKAGE, about SIZE, where none has them yet. A
# LIBRARY that apt does not know is passed over: newer releases name some otherwise, and some have them installed.

debian_missing() {
    echo "tools/$name.sh: $1" >&2
    exit 1
}

debian_has() {
    local program
    for program in $programs; do
        [[ -x $1/$program ]] || return 1
    done
}

debian_candidate() { apt-cache "${options[@]}" policy "$package" | sed -n 's/^ *Candidate: //p'; }

debian_program() {
    local name=$1 size=$2 programs=$3 package=$4
    shift 3
    local cache="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/$name"
    local folder tool version one file target options=()
    # The newest that is there already.
    for folder in $(ls -dr "$cache"/*/ 2> /dev/null); do
        if debian_has "$folder"; then
            echo "${folder%/}"
            return
        fi
    done

    for tool in apt-get apt-cache dpkg; do
        command -v "$tool" > /dev/null ||
            debian_missing "$tool is missing: $package comes from Debian's packages (Debian, Ubuntu)"
    done
    mkdir -p "$cache"
    version=$(debian_candidate)
    if [[ -z $version || $version == "(none)" ]]; then
        # The machine has no lists of packages yet: lists of our own, which need no root either.
        echo "tools/$name.sh: fetching the lists of packages" >&2
        mkdir -p "$cache/lists/partial" "$cache/archives/partial"
        options=(-o "Dir::State::Lists=$cache/lists" -o "Dir::Cache=$cache")
        apt-get "${options[@]}" update > /dev/null 2>&1 || debian_missing "apt-get update failed; is its mirror reachable?"
        version=$(debian_candidate)
    fi
    [[ -n $version && $version != "(none)" ]] || debian_missing "apt knows no package $package"

    # Beside the target, so that the last step is a rename: nobody ever sees half a program.
    work="$(mktemp -d "$cache/fetch.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    echo "tools/$name.sh: fetching $package $version ($size)" >&2
    for one in "$@"; do
        (cd "$work" && apt-get "${options[@]}" download "$one" > apt.log 2>&1) ||
            [[ $one != "$package" ]] ||
            debian_missing "apt could not fetch $one: $(tail -n 1 "$work/apt.log"); is its mirror reachable?"
    done
    for file in "$work"/*.deb; do
        dpkg -x "$file" "$work/root"
    done
    chmod 755 "$work/root"
    target="$cache/${version//[:~+]/-}"
    # Another run may have been quicker: then its folder stays and ours goes.
    mv -T "$work/root" "$target" 2> /dev/null || debian_has "$target"
    echo "$target"
}
