package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteDocs prints the table as Markdown: docs/config.md, which a test keeps equal.
func WriteDocs(w io.Writer) error {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, s := range []struct {
		t     ResourceType
		title string
	}{{ResourceTopic, "Topics"}, {ResourceBroker, "Broker"}, {ResourceGroup, "Groups"}, {ResourceClientMetrics, "Client metrics"}} {
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		if s.t == ResourceBroker {
			b.WriteString("| key | type | default | values | change | status | what it does |\n|---|---|---|---|---|---|---|\n")
		} else {
			b.WriteString("| key | type | default | broker key | values | status | what it does |\n|---|---|---|---|---|---|---|\n")
		}
		for _, d := range Keys(s.t) {
			writeRow(&b, d)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(b *strings.Builder, d *Def) {
	def := code(d.Default)
	if !d.HasDefault {
		def = "none"
	}
	if d.KafkaDefault != "" {
		def += " (Kafka: " + code(d.KafkaDefault) + ")"
	}
	valid := ""
	if d.Check != nil {
		valid = d.Check.String()
	}
	status := d.Status.String()
	if d.Reason != "" {
		status += ": " + d.Reason
	}
	name := code(d.Name)
	if d.Own {
		name += " (Milena's own)"
	}
	third, fourth := valid, d.Scope.String()
	if d.AtStart {
		fourth = "read-only (Kafka: " + fourth + ")"
	}
	if d.Resource != ResourceBroker {
		var twins []string
		for _, s := range d.Synonyms {
			twins = append(twins, code(s.Name))
		}
		third, fourth = strings.Join(twins, ", "), valid
	}
	cells := []string{name, d.Type.String(), def, third, fourth, status, d.Doc}
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(c, "|", "\\|")
	}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func code(s string) string {
	if s == "" {
		return "empty"
	}
	return "`" + s + "`"
}

const docsHead = `# Configuration

Printed from the table in ` + "`internal/config`" + `: change it there and run ` + "`go test ./internal/config -rewrite`" + `.

At start, best first: flags (` + "`--set key=value`" + `), environment variables (` + "`MILENA_LOG_RETENTION_MS`" + ` is
` + "`log.retention.ms`" + `), a file in Java's properties format (` + "`--config FILE`" + `). An unknown key or a bad value
stops the start with one line. While the broker runs, keys that are not read-only can be changed with
` + "`milena config set`" + ` or any Kafka tool. A topic's own value comes before this broker's, that before the one for
all brokers, that before what was given at start, that before the default.

Status: **live** does what it says; **inert** is accepted and reported but has no effect, for the given reason;
**refused** means that any value but the default is an error.
`
