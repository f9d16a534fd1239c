# Sourced by test/clients/run and test/realinput/run: starts the broker under test and stops it by its process id.
# BROKER=milena (default), milena3 (a cluster of three, topics get three replicas), kafka (the real one, to see that a
# test is right), or HOST:PORT of one that runs.
# MILENA=PATH runs another build of it, for example one with the race detector.
# After start_broker: $bootstrap, $broker_pid (empty for HOST:PORT), $work (a temporary directory). Of three, $broker_pid
# and $port are the first one's and $more_pids the others'.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
broker_pid=
more_pids=()

# free_port prints a port of the loopback address nobody listens on. Below 20000: test/kafka/start uses PORT+10000 as well.
free_port() {
	local p
	while :; do
		p=$((11000 + RANDOM % 9000))
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
	done
}

# launch_broker starts (again) the broker of kind $BROKER on $port with the data in $work/data.
launch_broker() {
	case $BROKER in
	kafka) "$root/test/kafka/start" "$port" "$work/data" group.initial.rebalance.delay.ms=300 >>"$work/broker.log" 2>&1 & ;;
	milena)
		printf '%s\n' "listeners=PLAINTEXT://127.0.0.1:$port" "advertised.listeners=PLAINTEXT://127.0.0.1:$port" \
			"log.dirs=$work/data" group.initial.rebalance.delay.ms=300 >"$work/server.properties"
		"${MILENA:-$root/bin/milena}" serve --config "$work/server.properties" >>"$work/broker.log" 2>&1 &
		;;
	milena3) launch_member 1 & ;;
	esac
	broker_pid=$!
}

# launch_member runs broker $1 of three in the foreground of a subshell. Each has two data directories, so that a replica
# can be moved from one to the other.
launch_member() {
	local d=$work/data/$1
	mkdir -p "$d"
	printf '%s\n' "node.id=$1" "listeners=PLAINTEXT://127.0.0.1:${ports[$1]}" "advertised.listeners=PLAINTEXT://127.0.0.1:${ports[$1]}" \
		"cluster=1@127.0.0.1:${ports[4]},2@127.0.0.1:${ports[5]},3@127.0.0.1:${ports[6]}" "log.dirs=$d/a,$d/b" \
		"broker.rack=rack$1" default.replication.factor=3 group.initial.rebalance.delay.ms=300 >"$work/server$1.properties"
	exec "${MILENA:-$root/bin/milena}" serve --config "$work/server$1.properties" >>"$work/broker$1.log" 2>&1
}

# wait_port waits at most $1 seconds until somebody listens on $port.
wait_port() {
	local i
	for ((i = 0; i < $1 * 20; i++)); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return 0
		kill -0 "$broker_pid" 2>/dev/null || return 1
		sleep 0.05
	done
	return 1
}

start_broker() {
	BROKER=${BROKER:-milena}
	case $BROKER in
	*:*) bootstrap=$BROKER; return 0 ;;
	esac
	port=$(free_port)
	bootstrap=127.0.0.1:$port
	if [ "$BROKER" = milena3 ]; then
		export FACTOR=3
		ports=(0 "$port")
		while [ "${#ports[@]}" -lt 7 ]; do
			local p
			p=$(free_port)
			case " ${ports[*]} " in *" $p "*) ;; *) ports+=("$p") ;; esac
		done
		for i in 2 3; do
			launch_member $i &
			more_pids+=($!)
		done
	fi
	launch_broker
	if wait_port 40; then
		[ "$BROKER" = milena3 ] || return 0
		for port in "${ports[3]}" "${ports[2]}" "${ports[1]}"; do wait_port 20 || break; done
		[ "$port" = "${ports[1]}" ] && return 0
	fi
	echo "FAIL broker/start $BROKER did not listen on port $port within 40 s: $(tail -n 3 "$work"/broker*.log | tr '\n' ' ')"
	return 1
}

# stop_broker ends the broker, or all three, by SIGTERM and says so when one needed more. $stop_rc is the worst status.
stop_broker() {
	local pids=("${more_pids[@]}") i p rc=0
	[ -z "$broker_pid" ] || pids+=("$broker_pid")
	broker_pid= more_pids=() stop_rc=0
	[ "${#pids[@]}" -gt 0 ] || return 0
	kill "${pids[@]}" 2>/dev/null
	for ((i = 0; i < 200; i++)); do
		for p in "${pids[@]}"; do kill -0 "$p" 2>/dev/null && break; done
		kill -0 "$p" 2>/dev/null || break
		sleep 0.05
	done
	for p in "${pids[@]}"; do
		kill -9 "$p" 2>/dev/null
		wait "$p" 2>/dev/null
		rc=$?
		[ "$rc" -le "$stop_rc" ] || stop_rc=$rc
	done
	[ "$i" -lt 200 ]
}
