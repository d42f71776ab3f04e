#!/bin/sh
# Stand-in for nvidia-cdi-hook, for containers of the embedded cluster. Like the real one it is
# started on the host when a container is created, and reads the OCI state from standard input.

set -eu

fail() {
    printf 'nvidia-cdi-hook: %s\n' "$1" >&2
    exit 1
}

# What the JSON string that the expression $1 leads to says; \" and \\ are all it may escape.
json_text() {
    tr '\n' ' ' | sed -n "s/.*$1"' *: *"\([^"\\]*\(\\.[^"\\]*\)*\)".*/\1/p' | sed 's/\\\(.\)/\1/g'
}

# The container's root directory, from the bundle that the state names.
find_root() {
    bundle=$(json_text '"bundle"')
    [ -n "$bundle" ] || fail 'the OCI state on standard input names no bundle'
    [ -f "$bundle/config.json" ] || fail "no file $bundle/config.json"
    root=$(json_text '"root" *: *{[^}]*"path"' <"$bundle/config.json")
    [ -n "$root" ] || fail "$bundle/config.json names no root.path"
    case $root in
    /*) ;;
    *) root=$bundle/$root ;;
    esac
    [ -d "$root" ] || fail "the container's root $root is no directory"
}

# Leaves in $inside where the directory $1 of the container is below $root. Links are followed as
# the container would follow them, so an absolute one cannot lead onto the host.
resolve() {
    rest=$1 inside= hops=0
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in
        */*) rest=${rest#*/} ;;
        *) rest= ;;
        esac
        case $part in
        '' | .) continue ;;
        ..)
            inside=${inside%/*}
            continue
            ;;
        esac
        if [ -L "$root$inside/$part" ]; then
            hops=$((hops + 1))
            [ "$hops" -le 40 ] || fail "too many links in $1"
            to=$(readlink "$root$inside/$part")
            rest=$to${rest:+/$rest}
            case $to in /*) inside= ;; esac
            continue
        fi
        inside=$inside/$part
    done
}

create_link() {
    case $1 in
    ?*::/?*) ;;
    *) fail "--link takes TARGET::LINK with an absolute LINK, not '$1'" ;;
    esac
    target=${1%%::*} link=${1#*::}
    resolve "${link%/*}"
    [ -d "$root$inside" ] || mkdir -p "$root$inside"
    place=$root$inside/${link##*/}
    if [ -e "$place" ] && [ ! -L "$place" ]; then
        fail "$link exists in the container and is no link"
    fi
    ln -sfn "$target" "$place"
}

[ $# -gt 0 ] || fail 'name a command: create-symlinks, update-ldcache, enable-cuda-compat, ...'
command=$1
shift
case $command in
create-symlinks) find_root ;;
# Placeholder libraries need no linker cache, no compatibility libraries and no device parameters.
update-ldcache | enable-cuda-compat | disable-device-node-modification | chmod) exit 0 ;;
*) fail "unknown command $command" ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    --link)
        [ $# -gt 1 ] || fail '--link needs a value'
        shift
        create_link "$1"
        ;;
    --link=*) create_link "${1#--link=}" ;;
    *) fail "unknown option $1" ;;
    esac
    shift
done
