#!/usr/bin/env bash
# kcat (librdkafka): proves that the tool people reach for first works. Usage: kcat.sh HOST:PORT
set -u
b=$1 tag=$$-$RANDOM failed=0
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
k() { timeout 30 kcat -q -b "$b" -X topic.metadata.refresh.interval.ms=1000 "$@"; }
that() { # NAME WHAT: judges the status of the command before it
	local rc=$?
	if [ $rc = 0 ]; then echo "ok kcat/$1 $2"; else echo "FAIL kcat/$1 ${why:-status $rc} $(tail -n 2 "$tmp/err" 2>/dev/null | tr '\n' ' ')"; failed=1; fi
	why=
}
for i in $(seq 500); do printf 'key-%d\tline %d of some text that repeats, of some text that repeats\n' "$i" "$i"; done >"$tmp/in"
for z in none gzip snappy lz4 zstd; do
	t=c-kcat-$z-$tag
	k -P -t "$t" -p 0 -K '\t' -z $z -X enable.idempotence=true -H codec=$z <"$tmp/in" 2>"$tmp/err" &&
		k -C -t "$t" -p 0 -o beginning -e -K '\t' >"$tmp/out" 2>"$tmp/err" && cmp -s "$tmp/in" "$tmp/out"
	that "codec-$z" "500 keyed lines, idempotent, came back equal from an auto-created topic"
done
t=c-kcat-none-$tag
[ "$(k -C -t "$t" -o 10 -c 1 -f '%o %k %h %p' 2>"$tmp/err")" = "10 key-11 codec=none 0" ]
that headers "offset 10 by seek shows its key, header and partition"
[ "$(k -C -t "$t" -o -5 -c 1 -f '%o')" = 495 ]
that tail "five before the end is offset 495"
printf 'k\t\n' | k -P -t "c-kcat-null-$tag" -K '\t' -Z 2>"$tmp/err" && [ "$(k -C -t "c-kcat-null-$tag" -e -o beginning -Z -f '%k=%s %S')" = "k=NULL -1" ]
that null "an empty value sent with -Z is a null"
head -c 900000 /dev/urandom | base64 -w0 | head -c 1000000 >"$tmp/big"
k -P -t "c-kcat-big-$tag" -X message.max.bytes=1048576 "$tmp/big" 2>"$tmp/err" && k -C -t "c-kcat-big-$tag" -e -o beginning -f '%s' >"$tmp/out" && cmp -s "$tmp/big" "$tmp/out"
that big "a record of 1,000,000 bytes"
now=$(date +%s%3N)
[ "$(k -Q -t "$t:0:$((now - 3600000))" 2>"$tmp/err")" = "$t [0] offset 0" ] && [ "$(k -Q -t "$t:0:-1")" = "$t [0] offset 500" ]
that offsets-by-time "an hour ago is offset 0, -1 is offset 500"
k -C -t "$t" -o "s@$((now - 3600000))" -o "e@$((now + 60000))" -e -f '%o\n' >"$tmp/out" 2>"$tmp/err" && [ "$(wc -l <"$tmp/out")" = 500 ]
that time-range "all 500 records between two times"
k -L -t "$t" -J >"$tmp/out" 2>"$tmp/err" && grep -q '"controllerid":' "$tmp/out" && grep -q "\"topic\":\"$t\",\"partitions\":\[{\"partition\":0,\"leader\":" "$tmp/out"
that metadata "topic with its leader, controller known"
timeout 30 kcat -b "$b" -G "g-kcat-$tag" -X auto.offset.reset=earliest -X heartbeat.interval.ms=300 -c 200 -f '%o\n' "$t" >"$tmp/one" 2>"$tmp/err" &&
	timeout 30 kcat -b "$b" -G "g-kcat-$tag" -X auto.offset.reset=earliest -X heartbeat.interval.ms=300 -c 300 -f '%o\n' "$t" >"$tmp/two" 2>"$tmp/err" &&
	[ "$(cat "$tmp/one" "$tmp/two" | sort -n | uniq | wc -l)" = 500 ]
that group "a group read 200, left, came back and read the other 300"
echo "done kcat"
exit $failed
