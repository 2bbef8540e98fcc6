package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestPercentilesAreThoseOfWhatWasRecorded(t *testing.T) {
	latencies := make([]uint32, 0, 1_000)
	for latency := uint32(1_000); latency > 0; latency-- {
		latencies = append(latencies, latency)
	}
	if got, want := percentilesOf(latencies), (percentiles{500, 900, 990, 999, 1_000}); got != want {
		t.Errorf("%v, not %v", got, want)
	}
	if got := percentilesOf(nil); got != (percentiles{}) {
		t.Errorf("%v of nothing", got)
	}
}

func TestRecordsAreDueByTheRateAlone(t *testing.T) {
	c := clock{start: time.Unix(0, 0)}
	for number, want := range map[uint64]time.Duration{
		0:             0,
		1:             333_333_333,
		3:             time.Second,
		3_000_000_001: 1_000_000_000*time.Second + 333_333_333,
	} {
		if got := c.due(number, 3).Sub(c.start); got != want {
			t.Errorf("record %d is due after %v, not %v", number, got, want)
		}
	}
}

// What was due and found no room counts as late as it is at least: a stall is not left out.
func TestWhatWasNeverSentCounts(t *testing.T) {
	start := time.Unix(100, 0)
	p := &publisher{
		load:  &options{rate: 10},
		clock: clock{start, start.Add(time.Second), start.Add(3 * time.Second)},
	}
	// Records 5 to 29 are due within three seconds; the first second is not counted.
	if unsent := p.giveUp(5); unsent != 25 {
		t.Errorf("%d unsent, not 25", unsent)
	}
	if _, latency := p.tally.done(); len(p.tally.latencies) != 20 || latency.Max != 2_000_000 {
		t.Errorf("%d latencies, the longest %d us", len(p.tally.latencies), latency.Max)
	}
}

func TestMessagesAreFoundBetweenWhatElseIsSaid(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := &conn{socket: ours, reader: bufio.NewReader(ours), writer: bufio.NewWriter(ours)}
	go io.WriteString(theirs, "INFO {}\r\n+OK\r\nMSG a.1 1 5\r\nhello\r\n"+
		"HMSG a.2 1 reply 12 12\r\nNATS/1.0\r\n\r\n\r\n-ERR 'Slow Consumer'\r\n")
	var got message
	var buffer []byte
	for _, want := range []struct {
		subject, payload string
		hasHeader        bool
	}{{"a.1", "hello", false}, {"a.2", "NATS/1.0\r\n\r\n", true}} {
		if err := c.next(&got, &buffer); err != nil {
			t.Fatal(err)
		}
		if string(got.subject) != want.subject || string(got.payload) != want.payload || got.hasHeader != want.hasHeader {
			t.Errorf("%q %q %v", got.subject, got.payload, got.hasHeader)
		}
	}
	if err := c.next(&got, &buffer); err == nil || !strings.Contains(err.Error(), "Slow Consumer") {
		t.Errorf("%v is not what the server said", err)
	}
}

// fakeServer takes one connection, and answers each record published as `reply` says.
func fakeServer(t *testing.T, reply string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		socket, err := listener.Accept()
		if err != nil {
			return
		}
		defer socket.Close()
		lines := bufio.NewReader(socket)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			var subject, inbox string
			var size int64
			if n, _ := fmt.Sscanf(line, "PUB %s %s %d", &subject, &inbox, &size); n == 3 {
				io.CopyN(io.Discard, lines, size+2)
				fmt.Fprintf(socket, "MSG %s 1 %d\r\n%s\r\n", inbox, len(reply), reply)
			}
		}
	}()
	return listener.Addr().String()
}

func TestWhatIsAcknowledgedCounts(t *testing.T) {
	address := fakeServer(t, `{"stream":"s","seq":1}`)
	words := []string{"produce", "-address", address, "-subject", "s", "-window", "7", "-warm-up", "0s", "-duration", "200ms"}
	report, err := run(words)
	if err != nil {
		t.Fatal(err)
	}
	got := report.(*produced)
	if got.Records == 0 || got.Bytes != 1024*got.Records || got.P50 == 0 || got.Unsent != 0 {
		t.Errorf("%+v", got)
	}
}

func TestARefusedRecordIsAnError(t *testing.T) {
	address := fakeServer(t, `{"error":{"code":503,"description":"insufficient resources"}}`)
	words := []string{"produce", "-address", address, "-subject", "s", "-rate", "1000", "-duration", "10s"}
	if _, err := run(words); err == nil || !strings.Contains(err.Error(), "insufficient resources") {
		t.Errorf("%v is not the refusal", err)
	}
}
