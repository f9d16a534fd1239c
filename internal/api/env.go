package api

import (
	"log/slog"
	"time"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/controller"
	"github.com/milena-mq/milena/internal/meta"
	"github.com/milena-mq/milena/internal/metric"
	"github.com/milena-mq/milena/internal/partition"
	"github.com/milena-mq/milena/internal/session"
	"github.com/milena-mq/milena/internal/shard"
)

// Env is what the APIs work with. It does not change after New.
type Env struct {
	NodeID      int32
	Image       func() *meta.Image // the newest metadata this broker knows; nil before the first
	Controller  *controller.Controller
	Partitions  *partition.Set
	Sessions    *session.Cache // of Fetch
	ProducerIDs *ProducerIDs
	Groups      *shard.Groups
	Static      *config.Static
	Log         *slog.Logger
	Metrics     *metric.Catalog
	Clock       func() time.Time
}
