// Command milena is the broker and the tools for it.
package main

import (
	"os"

	"github.com/milena-mq/milena/internal/broker"
	"github.com/milena-mq/milena/internal/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	os.Exit(cli.Run(os.Args[1:], cli.OS(), version, broker.Serve(version, os.Stderr)))
}
