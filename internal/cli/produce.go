package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/spf13/cobra"
)

// maxLine bounds one line of input, so that a file without line ends does not fill memory. It is Kafka's
// largest request.
const maxLine = 100 << 20

type produceFlags struct {
	separator, key, codec, acks, file string
	headers                           []string
	partition                         int32
	emptyNull, quiet                  bool
	timestamp                         string
}

func (a *app) produceCommand() *cobra.Command {
	f := produceFlags{}
	c := &cobra.Command{
		Use:   "produce TOPIC [FILE|-]",
		Short: "Write records, one for each line of a file or of standard input",
		Long: `Write records, one for each line of FILE, or of standard input without FILE or with -.
With --separator a line is key, separator, value; a line without separator has no key.
It ends with code 0 only after every record was acknowledged.`,
		Example: `  echo "Dear Milena" | milena produce letters
  milena produce letters --separator : -H from=Prague letters.txt
  milena produce letters --codec zstd --acks all < letters.txt`,
		Args:              args(1, 2, "the name of a topic and perhaps a file"),
		ValidArgsFunction: a.completeProduce,
		RunE: func(cmd *cobra.Command, got []string) error {
			if len(got) == 2 {
				f.file = got[1]
			}
			return a.produce(cmd, got[0], f)
		},
	}
	p := c.Flags()
	p.StringVarP(&f.separator, "separator", "s", "", `what divides key and value in a line, for example : or \t`)
	p.StringVarP(&f.key, "key", "k", "", "key of every record")
	p.StringArrayVarP(&f.headers, "header", "H", nil, "name=value for every record; may be repeated")
	p.StringVarP(&f.codec, "codec", "c", "none", "compression: "+strings.Join(admin.Codecs, ", "))
	p.StringVarP(&f.acks, "acks", "a", "all", "who must have a record before it counts as written: all, 1 (the leader) or 0 (nobody)")
	p.Int32VarP(&f.partition, "partition", "p", -1, "partition of every record; -1 is by key, or any")
	p.StringVar(&f.timestamp, "timestamp", "", "time of every record: 2026-01-31T12:00:00Z or ms; without it, now")
	p.BoolVar(&f.emptyNull, "empty-null", false, "an empty value is null: a deletion marker in a compacted topic")
	p.BoolVarP(&f.quiet, "quiet", "q", false, "no progress and no closing line")
	must(c.RegisterFlagCompletionFunc("codec", cobra.FixedCompletions(admin.Codecs, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("acks", cobra.FixedCompletions([]string{"all", "1", "0"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) completeProduce(cmd *cobra.Command, got []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(got) == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeTopics(true)(cmd, got, prefix)
}

// lines makes records of lines.
type lines struct {
	f       produceFlags
	sep     []byte
	key     []byte
	headers []admin.Header
	at      time.Time
}

func newLines(f produceFlags, keyed bool) (*lines, error) {
	l := &lines{f: f, sep: []byte(unescape(f.separator))}
	if keyed {
		if f.separator != "" {
			return nil, usagef("give either --key or --separator")
		}
		l.key = []byte(f.key)
	}
	for _, h := range f.headers {
		k, v, ok := strings.Cut(h, "=")
		if !ok {
			return nil, usagef("--header %q: want name=value", h)
		}
		l.headers = append(l.headers, admin.Header{Key: k, Value: []byte(v)})
	}
	if f.timestamp != "" {
		ms, err := parseTime(strings.TrimPrefix(f.timestamp, "@"), time.Now())
		if err != nil {
			return nil, usagef("--timestamp %w", err)
		}
		l.at = time.UnixMilli(ms)
	}
	return l, nil
}

func (l *lines) record(line []byte) *admin.Record {
	r := &admin.Record{Key: l.key, Value: line, Headers: l.headers, Partition: l.f.partition, Timestamp: l.at}
	if len(l.sep) > 0 {
		if k, v, ok := bytes.Cut(line, l.sep); ok {
			r.Key, r.Value = k, v
		}
	}
	if l.f.emptyNull && len(r.Value) == 0 {
		r.Value = nil
	}
	return r
}

func (a *app) produce(cmd *cobra.Command, topic string, f produceFlags) error {
	acks, ok := map[string]int{"all": -1, "-1": -1, "1": 1, "0": 0}[f.acks]
	if !ok {
		return usagef("--acks %s: want all, 1 or 0", f.acks)
	}
	if !has(admin.Codecs, f.codec) {
		return usagef("--codec %s: want %s", f.codec, strings.Join(admin.Codecs, ", "))
	}
	ls, err := newLines(f, cmd.Flags().Changed("key"))
	if err != nil {
		return err
	}
	in, total := a.io.In, int64(-1)
	if f.file != "" && f.file != "-" {
		file, err := os.Open(f.file)
		if err != nil {
			return err
		}
		defer file.Close()
		if st, err := file.Stat(); err == nil && st.Mode().IsRegular() {
			total = st.Size()
		}
		in = file
	} else if terminal(in) && !f.quiet {
		fmt.Fprintln(a.io.Err, "Every line is a record; end with Ctrl-D")
	}
	ctx := cmd.Context()
	p, err := a.client().Producer(ctx, admin.ProduceOptions{Topic: topic, Partition: f.partition, Acks: acks, Codec: f.codec})
	if err != nil {
		return err
	}
	bar := a.progress(p, total, f.quiet || f.file == "" && terminal(a.io.In))
	err = sendLines(ctx, in, ls, p, bar)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	// What was read before an error is still written and counted. The same failure is told once.
	if f := p.Close(); err == nil || f != nil && f.Error() != err.Error() {
		err = errors.Join(err, f)
	}
	bar.end()
	records, size := p.Acked()
	if !f.quiet && (err == nil || records > 0) {
		err = errors.Join(err, a.produced(topic, records, size, bar))
	}
	return err
}

func (a *app) produced(topic string, records, bytes int64, bar *progress) error {
	if a.output == "json" {
		return a.show(map[string]any{"topic": topic, "records": records, "bytes": bytes, "seconds": since(bar.start)}, nil)
	}
	_, err := fmt.Fprintf(a.io.Err, "%s, %s in %.1f s\n", plural(records, "record"), size(bytes), since(bar.start))
	return err
}

func has(list []string, v string) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

func sendLines(ctx context.Context, in io.Reader, ls *lines, p *admin.Producer, bar *progress) error {
	r := bufio.NewReaderSize(in, 256<<10)
	for n := int64(1); ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := readLine(r)
		if err != nil && err != io.EOF {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if line == nil {
			return nil
		}
		if err := p.Send(ls.record(line)); err != nil {
			return err
		}
		bar.read(int64(len(line)) + 1)
		if err == io.EOF {
			return nil
		}
	}
}

// readLine returns the next line in memory of its own, without its end (\n or \r\n); nil at the end of
// the input. A last line without an end counts.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("longer than %s", size(maxLine))
		}
		line = append(line, part...)
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err != nil && len(line) == 0:
			return nil, err
		}
		if line[len(line)-1] == '\n' {
			line = line[:len(line)-1]
			line = bytes.TrimSuffix(line, []byte{'\r'})
		}
		if line == nil {
			line = []byte{}
		}
		return line, err
	}
}

// progress draws one line on standard error, five times a second, if that is a terminal.
type progress struct {
	w            io.Writer // nil: draws nothing
	p            *admin.Producer
	start, drawn time.Time
	total, got   int64 // bytes of input; total -1: not known
	lines        int64
}

func (a *app) progress(p *admin.Producer, total int64, off bool) *progress {
	b := &progress{p: p, start: time.Now(), total: total}
	if !off && terminal(a.io.Err) {
		b.w = a.io.Err
	}
	return b
}

func (b *progress) read(n int64) {
	b.got += n
	if b.lines++; b.w == nil || b.lines%64 != 0 || time.Since(b.drawn) < 200*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	b.draw()
}

func (b *progress) draw() {
	records, bytes := b.p.Acked()
	rate := float64(bytes) / since(b.start)
	text := fmt.Sprintf("%s records, %s, %s/s", count(records), size(bytes), size(int64(rate)))
	if b.total > 0 {
		const width = 30
		done := min(width, int(width*b.got/b.total))
		text = fmt.Sprintf("[%s%s] %3d%%  %s", strings.Repeat("#", done), strings.Repeat(".", width-done), min(100, 100*b.got/b.total), text)
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", text)
}

func (b *progress) end() {
	if b.w != nil && !b.drawn.IsZero() {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
