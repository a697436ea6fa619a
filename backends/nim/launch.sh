# Runs one container, attached, and sees to it that it is gone when this script is, however that ends.
#
# launch.sh PROGRAM CACHE WORD… NAME FILE
#   PROGRAM  docker or podman, an absolute path; CACHE is `cache=DIRECTORY`, made and mounted where NIM keeps weights
#   WORD…    what comes before the image: `run` and its flags
#   NAME     of the container; FILE holds the image's name in its first line
#
# It starts in a directory that is the container's own and private.

program=$1 cache=${2#cache=}
shift 2

# The last two words come first.
words=$(($# - 2))
while [ "$words" -gt 0 ]; do
  set -- "$@" "$1"
  shift
  words=$((words - 1))
done
name=$1 file=$2
shift 2

IFS= read -r image <"$file" || [ -n "$image" ] || exit 125
mkdir -p "$cache" || exit 125

# For the next runner: whom to ask for what may be left, and what is not left but a worker's.
printf '%s\n' "$program" "$name" >container

# In a session of its own it outlives a kill of the whole group, and sees it by the end of the pipe. A container engine
# may still be about to make the container when its client has gone: it is looked for again.
guard='cd /
read -r end
[ "$end" = over ] && exit
for pause in 0 1 4; do
  sleep "$pause"
  "$0" kill "$1"
  "$0" rm -f "$1"
done'
if command -v setsid >/dev/null && mkfifo life 2>/dev/null; then
  setsid sh -c "$guard" "$program" "$name" <life >/dev/null 2>&1 &
  exec 4>life
else
  exec 4>/dev/null
fi

quietly() {
  "$program" "$@" >/dev/null 2>&1 4>&-
}

# The group got the signal, too, and the client passes it on; what does not heed it is ended.
trap 'quietly stop -t 5 "$name" &' TERM INT

"$program" "$@" -v "$cache:/opt/nim/.cache" --name "$name" "$image" 4>&- &
client=$!
wait "$client"
code=$?
while kill -0 "$client" 2>/dev/null; do
  wait "$client"
  code=$?
done

trap '' TERM INT
quietly container inspect "$name"
case $? in
1 | 125) ;;
*)
  quietly kill "$name"
  quietly rm -f "$name"
  quietly container inspect "$name"
  case $? in 1 | 125) ;; *) exit "$code" ;; esac
  ;;
esac
echo over >&4
exit "$code"
