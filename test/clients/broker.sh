# Sourced by test/clients/run and test/realinput/run: starts the broker under test and stops it by its process id.
# BROKER=milena (default), kafka (the real one, to see that a test is right), or HOST:PORT of one that runs.
# MILENA=PATH runs another build of it, for example one with the race detector.
# After start_broker: $bootstrap, $broker_pid (empty for HOST:PORT), $work (a temporary directory).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
broker_pid=

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
	esac
	broker_pid=$!
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
	launch_broker
	wait_port 40 && return 0
	echo "FAIL broker/start $BROKER did not listen on port $port within 40 s: $(tail -n 3 "$work/broker.log" | tr '\n' ' ')"
	return 1
}

# stop_broker ends the broker by SIGTERM and says so when it needed more.
stop_broker() {
	[ -n "$broker_pid" ] || return 0
	kill "$broker_pid" 2>/dev/null
	local i
	for ((i = 0; i < 200; i++)); do
		kill -0 "$broker_pid" 2>/dev/null || { wait "$broker_pid"; stop_rc=$?; broker_pid=; return 0; }
		sleep 0.05
	done
	kill -9 "$broker_pid" 2>/dev/null
	wait "$broker_pid" 2>/dev/null
	broker_pid= stop_rc=137
	return 1
}
