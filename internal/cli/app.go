package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/milena-mq/milena/internal/admin"
	"github.com/milena-mq/milena/internal/config"
	"github.com/spf13/cobra"
)

// Serve runs a broker until ctx ends. It tells out where it listens and what to try next.
type Serve func(ctx context.Context, s *config.Static, out io.Writer) error

// IO is everything outside the process.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string      // NAME=value
	Look     time.Duration // how often a command that waits for moves looks; 0: once a second
}

// OS is the process's own IO.
func OS() IO { return IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ()} }

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usage is an error of the caller: exit code 2.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// app is what commands share.
type app struct {
	io        IO
	version   string
	serve     Serve
	bootstrap string
	output    string // table or json
	timeout   time.Duration
	cl        *admin.Client
}

// Run executes one command line (without the program's name) and returns the exit code. version is what the
// linker put into main; serve runs a broker. Interrupt and
// TERM end its context; a second one ends the process at once.
func Run(args []string, std IO, version string, serve Serve) int {
	// With the default action a closed pipe would kill the process: milena consume | head must end well.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on a signal has its default action
	return run(ctx, args, std, version, serve)
}

func run(ctx context.Context, args []string, std IO, version string, serve Serve) int {
	a := &app{io: std, version: version, serve: serve}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if a.cl != nil {
		a.cl.Close()
	}
	return a.exit(cmd, err)
}

func (a *app) exit(cmd *cobra.Command, err error) int {
	var u usage
	var none *admin.NoBroker
	switch {
	case err == nil, errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe):
		return exitOK
	case errors.As(err, &u), strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(a.io.Err, "milena: %s\n", oneLine(err))
		fmt.Fprintf(a.io.Err, "See %s --help\n", cmd.CommandPath())
		return exitUsage
	case errors.As(err, &none):
		fmt.Fprintf(a.io.Err, "milena: %s: start one with milena serve, or name another with --bootstrap\n", oneLine(err))
	default:
		fmt.Fprintf(a.io.Err, "milena: %s\n", oneLine(err))
	}
	return exitFailed
}

// oneLine joins the lines of an error: cobra's suggestions have several.
func oneLine(err error) string {
	s := err.Error()
	if i := strings.Index(s, "\n\nDid you mean this?\n\t"); i >= 0 {
		return s[:i] + ": did you mean " + strings.Join(strings.Fields(s[i+len("\n\nDid you mean this?"):]), ", ") + "?"
	}
	return strings.Join(strings.Fields(s), " ")
}

func (a *app) env(name, other string) string {
	for _, e := range a.io.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok && v != "" {
			return v
		}
	}
	return other
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "milena",
		Short: "A distributed log that speaks Kafka's protocol",
		Long: `Milena is a distributed log that every Kafka client can talk to. This one program is the broker and
the tools for it.

See a cluster of three survive the death of its brokers:

  milena demo

Start a broker, and try it from another terminal:

  milena serve
  milena topic create letters
  echo "Dear Milena" | milena produce letters
  milena consume letters`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	p := root.PersistentFlags()
	p.StringVarP(&a.bootstrap, "bootstrap", "b", a.env("MILENA_BOOTSTRAP", "127.0.0.1:9092"), "brokers to ask, host:port separated by commas (also MILENA_BOOTSTRAP)")
	p.StringVarP(&a.output, "output", "o", a.env("MILENA_OUTPUT", "table"), "form of the result: table or json (also MILENA_OUTPUT)")
	p.DurationVar(&a.timeout, "timeout", 10*time.Second, "longest wait for one answer")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "table" && a.output != "json" {
			return usagef("-o %s: want table or json", a.output)
		}
		if a.timeout <= 0 {
			return usagef("--timeout %s: want more than nothing", a.timeout)
		}
		return nil
	}
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.SetUsageTemplate(usageTemplate)
	root.AddGroup(&cobra.Group{ID: "broker", Title: "Broker"}, &cobra.Group{ID: "data", Title: "Records"}, &cobra.Group{ID: "admin", Title: "Administration"},
		&cobra.Group{ID: "help", Title: "About this program"})
	root.SetHelpCommandGroupID("help")
	root.SetCompletionCommandGroupID("help")
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("broker", a.serveCommand(), a.demoCommand(), a.logCommand())
	add("help", a.versionCommand())
	add("data", a.produceCommand(), a.consumeCommand())
	add("admin", a.topicCommand(), a.groupCommand(), a.txnCommand(), a.configCommand(), a.clusterCommand())
	wrapArgs(root)
	return root
}

// must is for mistakes in the tables of commands, which every test of the package would meet.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "milena:", err)
	}
}

// wrapArgs makes wrong numbers of arguments errors of use, and a command that only has subcommands say
// which of them it does not know instead of printing help as if all were well.
func wrapArgs(c *cobra.Command) {
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
	if !c.Runnable() && c.HasParent() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			var names []string
			for _, sub := range cmd.Commands() {
				names = append(names, sub.Name())
			}
			hint := "it has " + strings.Join(names, ", ")
			if near := config.Nearest(args[0], names); near != "" {
				hint = "did you mean " + near + "?"
			}
			return usagef("%s has no command %q: %s", short(cmd), args[0], hint)
		}
		return
	}
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage{err}
			}
			return nil
		}
	}
}

// short is the command without the program's name, which begins every error already.
func short(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// args checks the number of arguments with words a person understands; most < 0: any number.
func args(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, got []string) error {
		if len(got) < least || most >= 0 && len(got) > most {
			return fmt.Errorf("%s: want %s", short(cmd), want)
		}
		return nil
	}
}

// client connects lazily: making it costs nothing.
func (a *app) client() *admin.Client {
	if a.cl == nil {
		a.cl = admin.New(admin.Options{Bootstrap: addresses(a.bootstrap), Timeout: a.timeout})
	}
	return a.cl
}

func addresses(list string) []string {
	var out []string
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		if !strings.Contains(s, ":") || strings.HasSuffix(s, "]") {
			s += ":9092"
		}
		out = append(out, s)
	}
	return out
}

// completeNames offers names from the cluster, quickly or not at all: a shell must not hang.
func (a *app) completeNames(first bool, names func(context.Context) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, got []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if first && len(got) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		a.timeout = time.Second
		ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
		defer cancel()
		all, err := names(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, n := range all {
			if strings.HasPrefix(n, prefix) {
				out = append(out, n)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeTopics(first bool) cobra.CompletionFunc {
	return a.completeNames(first, func(ctx context.Context) ([]string, error) { return a.client().TopicNames(ctx) })
}

func (a *app) completeGroups(first bool) cobra.CompletionFunc {
	return a.completeNames(first, func(ctx context.Context) ([]string, error) { return a.client().GroupNames(ctx) })
}

const usageTemplate = `Usage:{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{else}}
  {{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}:{{range $cmds}}{{if and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
