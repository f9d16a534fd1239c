package partition

import (
	"slices"
	"strings"

	"github.com/milena-mq/milena/internal/batch"
	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/storage"
)

// Config is what the keys of one topic mean for its partitions.
type Config struct {
	Log    storage.LogConfig
	Rules  batch.Rules // without the values that differ by request
	MinISR int32

	// The lists of throttled replicas, joined by commas.
	LeaderThrottled, FollowerThrottled string
}

// Durable says that an acknowledged record is on disk: flush.messages is 1, the default here.
func (c *Config) Durable() bool { return c.Log.FlushMessages <= 1 }

// Flushes says that the logs are flushed by time as well.
func (c *Config) flushesByTime() bool { return c.Log.FlushMs < 1<<62 }

// ReadConfig reads the topic keys through the layers of configuration.
func ReadConfig(l config.Layers) Config {
	policy := config.CleanupPolicy.Of(l)
	compact := slices.Contains(policy, "compact")
	c := Config{
		Log: storage.LogConfig{
			SegmentBytes:           config.SegmentBytes.Of(l),
			IndexIntervalBytes:     config.IndexIntervalBytes.Of(l),
			SegmentIndexBytes:      config.SegmentIndexBytes.Of(l),
			SegmentMs:              config.SegmentMs.Of(l),
			SegmentJitterMs:        config.SegmentJitterMs.Of(l),
			RetentionMs:            config.RetentionMs.Of(l),
			RetentionBytes:         config.RetentionBytes.Of(l),
			FileDeleteDelayMs:      config.FileDeleteDelayMs.Of(l),
			Delete:                 slices.Contains(policy, "delete"),
			Compact:                compact,
			DeleteRetentionMs:      config.DeleteRetentionMs.Of(l),
			MinCompactionLagMs:     config.MinCompactionLagMs.Of(l),
			MaxCompactionLagMs:     config.MaxCompactionLagMs.Of(l),
			MinCleanableDirtyRatio: config.MinCleanableDirtyRatio.Of(l),
			FlushMessages:          config.FlushMessages.Of(l),
			FlushMs:                config.FlushMs.Of(l),
			Preallocate:            config.Preallocate.Of(l),
			ProducerExpiryMs:       int64(config.ProducerIDExpirationMs.Of(l)),
		},
		Rules: batch.Rules{
			MaxBytes:      int(config.MaxMessageBytes.Of(l)),
			Compacted:     compact,
			LogAppendTime: config.MessageTimestampType.Of(l) == "LogAppendTime",
			BeforeMaxMs:   config.MessageTimestampBeforeMaxMs.Of(l),
			AfterMaxMs:    config.MessageTimestampAfterMaxMs.Of(l),
		},
		MinISR: config.MinInsyncReplicas.Of(l),

		LeaderThrottled:   strings.Join(config.LeaderReplicationThrottledReplicas.Of(l), ","),
		FollowerThrottled: strings.Join(config.FollowerReplicationThrottledReplicas.Of(l), ","),
	}
	if n, ok := config.InternalSegmentBytes.Lookup(l); ok && n > 0 {
		c.Log.SegmentBytes = n
	}
	setCodec(&c.Rules, l)
	return c
}

// setCodec reads compression.type and the level that belongs to it.
func setCodec(r *batch.Rules, l config.Layers) {
	switch config.CompressionType.Of(l) {
	case "uncompressed":
		r.Codec = batch.None
	case "gzip":
		r.Codec, r.Level = batch.Gzip, int(config.CompressionGzipLevel.Of(l))
	case "snappy":
		r.Codec = batch.Snappy
	case "lz4":
		r.Codec, r.Level = batch.LZ4, int(config.CompressionLz4Level.Of(l))
	case "zstd":
		r.Codec, r.Level = batch.Zstd, int(config.CompressionZstdLevel.Of(l))
	default:
		r.Codec = batch.Producer
	}
}

// layers gathers the layers of one topic out of the image.
func (s *Set) layers(im *meta.Image, topic string) config.Layers {
	return config.Layers{
		Static:         s.o.Static,
		DynamicDefault: im.Config(meta.Resource{Type: meta.ResourceBroker}),
		DynamicBroker:  im.Config(meta.Resource{Type: meta.ResourceBroker, Name: s.self}),
		Topic:          im.Config(meta.Resource{Type: meta.ResourceTopic, Name: topic}),
	}
}
