# Sourced: jars from Maven in the user's cache folder.
#
# fetch_jars TARGET POM [ARGUMENT…]
# copies what POM depends on into TARGET/lib, whole or not at all; ARGUMENTs go to Maven. Fails where Maven does, which
# says why itself.
fetch_jars() {
    local target=$1 pom=$2
    shift 2
    mkdir -p "$target" || return 1
    partial=$(mktemp -d "$target/partial.XXXXXX") || return 1
    trap 'rm -rf "$partial"' EXIT
    mvn --batch-mode --quiet -Dstyle.color=never -f "$pom" dependency:copy-dependencies "$@" \
        "-DoutputDirectory=$partial" >&2 || return 1
    chmod 755 "$partial" || return 1
    # Another run may have been quicker: then its folder stays and ours goes.
    mv -T "$partial" "$target/lib" 2> /dev/null || [ -e "$target/lib" ]
}
