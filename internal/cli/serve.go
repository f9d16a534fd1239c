package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/milena-mq/milena/internal/config"
	"github.com/spf13/cobra"
)

type serveFlags struct {
	file, listen, advertise string
	data, set               []string
	id                      int32
	cluster, join           []string
	peer, coordinator       string
	withParent              bool
}

func (a *app) serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker until it is interrupted. Without any setting it listens on 127.0.0.1:9092 and keeps its data in
./milena-data.

Settings have Kafka's names. The first of these that has one wins: flags, environment variables
(MILENA_LOG_RETENTION_MS is log.retention.ms), the file of --config (Java properties, as Kafka's
server.properties). milena config keys broker lists them all.

Several brokers are one cluster: the first one, three or five are started with the same --cluster, each with
its own --node-id; later ones with --join. Brokers talk to each other at their --peer addresses, which need
TLS (milena cluster certs) unless they are on this machine.`,
		Example: `  milena serve
  milena serve --config server.properties --set num.partitions=12
  milena serve --listen 0.0.0.0:9092 --advertise broker1.example.org:9092 --data /var/lib/milena
  milena serve --node-id 1 --cluster 1@10.0.0.1:9094,2@10.0.0.2:9094,3@10.0.0.3:9094 --config tls.properties
  milena serve --node-id 4 --join 10.0.0.1:9094,10.0.0.2:9094 --peer 10.0.0.4:9094 --config tls.properties`,
		Args: args(0, 0, "no argument; settings are given with --set key=value"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.static(cmd, f)
			if err != nil {
				return usage{err}
			}
			if a.serve == nil {
				return errors.New("this program was built without a broker")
			}
			ctx := cmd.Context()
			if f.withParent {
				ctx = a.whileParentLives(ctx)
			}
			return a.serve(ctx, s, a.io.Out)
		},
	}
	p := c.Flags()
	p.StringVarP(&f.file, "config", "c", a.env("MILENA_CONFIG", ""), "file with settings, in Java's properties format (also MILENA_CONFIG)")
	p.StringArrayVarP(&f.set, "set", "s", nil, "key=value; may be repeated")
	p.StringSliceVarP(&f.data, "data", "d", nil, "data directories: log.dirs")
	p.StringVarP(&f.listen, "listen", "l", "", "host:port to listen on: listeners")
	p.StringVar(&f.advertise, "advertise", "", "host:port that clients are told: advertised.listeners")
	p.Int32Var(&f.id, "node-id", 0, "number of this broker: node.id")
	p.StringSliceVar(&f.cluster, "cluster", nil, "the first brokers of a cluster, id@host:port each: cluster")
	p.StringSliceVar(&f.join, "join", nil, "host:port where brokers of a cluster reach each other; this one joins it: join")
	p.StringVar(&f.peer, "peer", "", "host:port where other brokers reach this one: peer.listener")
	p.StringVar(&f.coordinator, "coordinator", "", "etcd://host:port,... or zookeeper://host:port,.../path that holds the metadata: coordinator")
	p.BoolVar(&f.withParent, "with-parent", false, "end when standard input does")
	must(p.MarkHidden("with-parent"))
	must(c.RegisterFlagCompletionFunc("set", completeKeys(config.ResourceBroker, "=")))
	return c
}

// whileParentLives ends with standard input: milena demo holds its other end, which the system closes however
// the demo ends. Its goroutine ends with the process: a read of standard input cannot be called off.
func (a *app) whileParentLives(ctx context.Context) context.Context {
	ctx, end := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, a.io.In)
		end()
	}()
	return ctx
}

// static merges the sources. The flags that have a name of their own come before --set, which may so
// repeat and override them only by an error: one key, one place.
func (a *app) static(cmd *cobra.Command, f serveFlags) (*config.Static, error) {
	sets := []string{}
	own := func(flag, key, value string) error {
		if !cmd.Flags().Changed(flag) {
			return nil
		}
		for _, s := range f.set {
			if strings.HasPrefix(s, key+"=") {
				return fmt.Errorf("--%s and --set %s say the same: give one", flag, key)
			}
		}
		sets = append(sets, key+"="+value)
		return nil
	}
	err := errors.Join(
		own("data", config.LogDirs.Name, strings.Join(f.data, ",")),
		own("listen", config.Listeners.Name, withName(f.listen)),
		own("advertise", config.AdvertisedListeners.Name, withName(f.advertise)),
		own("node-id", config.NodeID.Name, fmt.Sprint(f.id)),
		own("cluster", config.Cluster.Name, strings.Join(f.cluster, ",")),
		own("join", config.Join.Name, strings.Join(f.join, ",")),
		own("peer", config.PeerListener.Name, f.peer),
		own("coordinator", config.Coordinator.Name, f.coordinator))
	if err != nil {
		return nil, err
	}
	sets = append(sets, f.set...)
	if f.file == "" {
		return config.Parse(sets, nil, a.io.Env)
	}
	file, err := os.Open(f.file)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return config.Parse(sets, file, a.io.Env)
}

// withName makes a listener of host:port; what has a name already stays.
func withName(list string) string {
	parts := strings.Split(list, ",")
	for i, p := range parts {
		if p = strings.TrimSpace(p); !strings.Contains(p, "://") {
			p = config.Plaintext + "://" + p
		}
		parts[i] = p
	}
	return strings.Join(parts, ",")
}

// Version is what milena version prints.
type Version struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Kafka    string `json:"kafka"` // the release whose protocol is served
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			v := Version{Version: a.version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Kafka: "4.3"}
			if v.Version == "" {
				v.Version = "development"
			}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Commit = s.Value
					}
				}
			}
			return a.done(v, "milena %s (%s, %s), Kafka protocol of %s", v.Version, v.Go, v.Platform, v.Kafka)
		},
	}
}
