// Command nats-load publishes to a JetStream stream and reads it back, over NATS's plain protocol
// (docs.nats.io/reference/reference-protocols/nats-protocol) and with nothing but the standard
// library: a client library would use as much processor time as the server does.
//
// Prints one line of JSON, with the fields of `highwater --json bench produce` and `consume`.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// drain is how long the last acknowledgements may take after a load has ended.
const drain = 30 * time.Second

type options struct {
	address     string
	subject     string
	stream      string
	consumer    string
	records     uint64
	recordBytes int
	window      int
	rate        int
	warmUp      time.Duration
	duration    time.Duration
	serverPids  pids
}

// pids is a flag that may be repeated.
type pids []int

func (p *pids) String() string { return fmt.Sprint(*p) }

func (p *pids) Set(text string) error {
	pid, err := strconv.Atoi(text)
	*p = append(*p, pid)
	return err
}

func main() {
	report, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "nats-load:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(report)
}

func run(words []string) (any, error) {
	if len(words) == 0 {
		return nil, errors.New("say produce or consume")
	}
	load, err := parse(words[1:])
	if err != nil {
		return nil, err
	}
	switch words[0] {
	case "produce":
		return produce(load)
	case "consume":
		return consume(load)
	}
	return nil, fmt.Errorf("neither produce nor consume: %s", words[0])
}

func parse(words []string) (*options, error) {
	load := &options{}
	flags := flag.NewFlagSet("nats-load", flag.ContinueOnError)
	flags.StringVar(&load.address, "address", "", "host:port of the server that leads the stream")
	flags.StringVar(&load.subject, "subject", "", "where to publish")
	flags.StringVar(&load.stream, "stream", "", "what to consume")
	flags.StringVar(&load.consumer, "consumer", "", "a pull consumer of it that acknowledges nothing")
	flags.Uint64Var(&load.records, "records", 0, "how many to consume")
	flags.IntVar(&load.recordBytes, "record-bytes", 1024, "the size of a record")
	flags.IntVar(&load.window, "window", 4096, "how many records are on their way at once")
	flags.IntVar(&load.rate, "rate", 0, "records a second; 0: as many as are acknowledged")
	flags.DurationVar(&load.warmUp, "warm-up", time.Second, "how long nothing is counted")
	flags.DurationVar(&load.duration, "duration", 5*time.Second, "how long is counted")
	flags.Var(&load.serverPids, "server-pid", "a process whose processor time counts; may be repeated")
	if err := flags.Parse(words); err != nil {
		return nil, err
	}
	if load.window < 1 || load.recordBytes < 1 || load.rate < 0 || !strings.Contains(load.address, ":") {
		return nil, errors.New("window and record-bytes are at least 1, rate is not negative, address is host:port")
	}
	return load, nil
}
