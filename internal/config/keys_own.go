package config

// Keys of Milena that Kafka does not have.
var (
	// LogDirReserveBytes is log.dir.reserve.bytes.
	LogDirReserveBytes = broker[int64]("log.dir.reserve.bytes", "268435456", "Free bytes on the disk of a data directory below which produce is refused; reading, deleting and admin go on.", atLeast(0), own)
	// MetricsListener is metrics.listener.
	MetricsListener = broker[string]("metrics.listener", "", "host:port where metrics are served in Prometheus' form; empty serves none. Keep it on loopback: it has no login.", own)
	_               = broker[string]("coord.peer.listener", "127.0.0.1:0", "host:port where the embedded coordination stores of several brokers talk to each other.", inert(whyOne), own)
	// NetworkCongestionControl is network.congestion.control.
	NetworkCongestionControl = broker[string]("network.congestion.control", "", "TCP congestion control of accepted connections, for example cubic or bbr; empty leaves it to the system.", own)
	// LoggingLevel is logging.level.
	LoggingLevel = broker[string]("logging.level", "info", "What the broker logs about itself.", oneOf("debug", "info", "warn", "error"), own)
	// LoggingFormat is logging.format.
	LoggingFormat = broker[string]("logging.format", "text", "Form of the broker's own log lines.", oneOf("text", "json"), own)
)

// Keys of client metrics subscriptions (KIP-714).
var (
	_ = clientMetrics[[]string]("metrics", "", "Prefixes of the metrics that clients send; * is all.", inert(whyTelemetry))
	_ = clientMetrics[int32]("interval.ms", "300000", "How often clients send.", within(100, 3600000), inert(whyTelemetry))
	_ = clientMetrics[[]string]("match", "", "Which clients send: name=pattern, separated by commas.", inert(whyTelemetry))
)
