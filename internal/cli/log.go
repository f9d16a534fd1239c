package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/milena-mq/milena/internal/config"
	"github.com/milena-mq/milena/internal/storage"
	"github.com/milena-mq/milena/internal/vfs"
	"github.com/spf13/cobra"
)

const inspectHelp = `PATH is a data directory, the folder of one partition in it, or one .log file; without it, milena-data.
Nothing is changed. The files of a running broker may look torn at their ends: stop it first.`

func (a *app) logCommand() *cobra.Command {
	c := &cobra.Command{Use: "log", Short: "Look into the files of a data directory, without a broker"}
	c.AddCommand(a.logDump(), a.logVerify())
	return c
}

type inspectFlags struct {
	topic     string
	partition int32
	batches   bool
	records   bool
	indexes   bool
	raw       bool
}

func (f inspectFlags) options() (storage.InspectOptions, error) {
	o := storage.InspectOptions{Topic: f.topic, Partition: f.partition, Batches: f.batches, Records: f.records, Indexes: f.indexes}
	if f.partition >= 0 && f.topic == "" {
		return o, usagef("--partition needs --topic")
	}
	if !f.raw {
		o.Decode = storage.DecodeInternal
	}
	return o, nil
}

func (f *inspectFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.topic, "topic", "", "only this topic")
	c.Flags().Int32Var(&f.partition, "partition", -1, "only this partition of --topic")
}

func dataPath(got []string) string {
	if len(got) == 1 {
		return got[0]
	}
	return config.LogDir.Default
}

func (a *app) logDump() *cobra.Command {
	f := inspectFlags{batches: true}
	c := &cobra.Command{
		Use:   "dump [PATH]",
		Short: "Print batches, records, indexes and snapshots",
		Long: `Print what is in log files, one line for each batch in the words of Kafka's kafka-dump-log.
With -o json every line is a JSON object; keys and values are base64 there.

` + inspectHelp,
		Example: `  milena log dump milena-data --topic letters --partition 0 --records
  milena log dump milena-data/letters-0/00000000000000000000.log`,
		Args: args(0, 1, "a data directory, a folder in it or a .log file"),
		RunE: func(_ *cobra.Command, got []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(a.io.Out, 64<<10)
			_, err = storage.Inspect(vfs.OS, dataPath(got), o, a.dumpTo(w))
			if e := w.Flush(); err == nil {
				err = e
			}
			return err
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&f.records, "records", "r", false, "also every record")
	c.Flags().BoolVarP(&f.indexes, "indexes", "i", false, "also indexes, snapshots, epoch lists and checkpoints")
	c.Flags().BoolVar(&f.raw, "raw", false, "show records of internal topics as bytes")
	return c
}

// dumpTo prints items under the name of their file.
func (a *app) dumpTo(w io.Writer) func(storage.InspectItem) error {
	if a.output == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return func(i storage.InspectItem) error { return e.Encode(i) }
	}
	last := ""
	return func(i storage.InspectItem) error {
		if where := i.Log + "/" + i.File; where != last && i.Problem == nil {
			last = where
			if _, err := fmt.Fprintf(w, "Dumping %s\n", where); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(w, i)
		return err
	}
}

// verification is what log verify prints as JSON.
type verification struct {
	Summary  verified              `json:"summary"`
	Problems []storage.InspectItem `json:"problems"`
}

// verified has the fields of storage.InspectSummary with JSON's usual names.
type verified struct {
	Logs     int   `json:"logs"`
	Segments int   `json:"segments"`
	Files    int   `json:"files"`
	Batches  int64 `json:"batches"`
	Records  int64 `json:"records"`
	Bytes    int64 `json:"bytes"`
	Damage   int   `json:"damage"`
	Tails    int   `json:"tails"`
	Notes    int   `json:"notes"`
}

// maxProblems bounds what is kept of a directory where every batch is broken.
const maxProblems = 1000

func (a *app) logVerify() *cobra.Command {
	var f inspectFlags
	c := &cobra.Command{
		Use:   "verify [PATH]",
		Short: "Check every batch, record, index and snapshot; code 1 when something is damaged",
		Long: `Check lengths, checksums, offsets, epochs and timestamps of every batch and record, and every index entry.

  damage   a broker refuses to serve this, or would serve it wrongly
  tail     past what was made durable: cut at the next start, as after any crash
  note     harmless

` + inspectHelp,
		Args: args(0, 1, "a data directory, a folder in it or a .log file"),
		RunE: func(_ *cobra.Command, got []string) error {
			o, err := f.options()
			if err != nil {
				return err
			}
			v := verification{Problems: []storage.InspectItem{}}
			sum, err := storage.Inspect(vfs.OS, dataPath(got), o, func(i storage.InspectItem) error {
				if i.Problem != nil && len(v.Problems) < maxProblems {
					v.Problems = append(v.Problems, i)
				}
				return nil
			})
			if err != nil {
				return err
			}
			v.Summary = verified{sum.Logs, sum.Segments, sum.Files, sum.Batches, sum.Records, sum.Bytes, sum.Damage, sum.Tails, sum.Notes}
			if err := a.show(v, func(w io.Writer) error { return writeVerification(w, v) }); err != nil {
				return err
			}
			if n := v.Summary.Damage; n > 0 {
				return fmt.Errorf("%s in %s", plural(int64(n), "damaged place"), dataPath(got))
			}
			return nil
		},
	}
	f.register(c)
	return c
}

func writeVerification(w io.Writer, v verification) error {
	for _, p := range v.Problems {
		if _, err := fmt.Fprintln(w, clean(p.String())); err != nil {
			return err
		}
	}
	s := v.Summary
	if all := s.Damage + s.Tails + s.Notes; all > len(v.Problems) {
		fmt.Fprintf(w, "... and %s more\n", count(int64(all-len(v.Problems))))
	}
	return facts(w, "Logs", count(int64(s.Logs)), "Segments", count(int64(s.Segments)), "Batches", count(s.Batches), "Records", count(s.Records),
		"Size", size(s.Bytes), "Damage", s.Damage, "Tails", s.Tails, "Notes", s.Notes)
}
