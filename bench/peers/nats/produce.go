package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// inbox is where acknowledgements come; the number of a place in the window follows. It is this
// process's own: those of an earlier load may still be on their way.
var inbox = fmt.Sprintf("_INBOX.highwater.%d.", os.Getpid())

type produced struct {
	Kind             string  `json:"kind"`
	Records          uint64  `json:"records"`
	Bytes            uint64  `json:"bytes"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond uint64  `json:"records_per_second"`
	BytesPerSecond   uint64  `json:"bytes_per_second"`
	percentiles
	// Unsent were due and found no room in the window before the load ended. Their latency is
	// counted as if they had been acknowledged right then: it is longer.
	Unsent    uint64  `json:"unsent"`
	ClientCPU float64 `json:"client_cpu_seconds_per_gb"`
	ServerCPU float64 `json:"server_cpu_seconds_per_gb"`
}

// publisher keeps a window of records on their way.
type publisher struct {
	conn  *conn
	load  *options
	clock clock
	// free has the places of the window that hold no record; intended says when those in the
	// others were to be sent, after the start.
	free     chan int
	intended []atomic.Int64
	replies  []string
	values   []byte
	tally    tally
	failed   chan error
}

func produce(load *options) (*produced, error) {
	p, err := newPublisher(load)
	if err != nil {
		return nil, err
	}
	defer p.conn.socket.Close()
	go func() { p.failed <- p.collect() }()
	sent := make(chan error, 1)
	unsent := uint64(0)
	go func() {
		var err error
		unsent, err = p.send()
		sent <- err
	}()
	client, server, err := p.measure()
	if err != nil {
		return nil, err
	}
	if err := p.finish(sent); err != nil {
		return nil, err
	}
	return p.report(client, server, unsent)
}

func newPublisher(load *options) (*publisher, error) {
	conn, err := dial(load.address)
	if err != nil {
		return nil, err
	}
	p := &publisher{
		conn:     conn,
		load:     load,
		clock:    newClock(load),
		free:     make(chan int, load.window),
		intended: make([]atomic.Int64, load.window),
		replies:  make([]string, load.window),
		values:   make([]byte, 4<<20+load.recordBytes),
		failed:   make(chan error, 1),
	}
	for place := range p.replies {
		p.replies[place] = inbox + strconv.Itoa(place)
		p.free <- place
	}
	if _, err := rand.Read(p.values); err != nil {
		return nil, err
	}
	return p, conn.write("SUB " + inbox + "* 1\r\n")
}

// measure waits for the counted time and takes the processor time that it used.
func (p *publisher) measure() (client, server float64, err error) {
	if err = p.wait(p.clock.from); err != nil {
		return 0, 0, err
	}
	meter, err := startMeter(p.load.serverPids)
	if err != nil {
		return 0, 0, err
	}
	if err = p.wait(p.clock.to); err != nil {
		return 0, 0, err
	}
	return meter.used()
}

func (p *publisher) wait(until time.Time) error {
	select {
	case err := <-p.failed:
		return err
	case <-time.After(time.Until(until)):
		return nil
	}
}

// finish waits until the window is empty: all that was sent is acknowledged.
func (p *publisher) finish(sent chan error) error {
	if err := <-sent; err != nil {
		return err
	}
	late := time.After(drain)
	for range p.replies {
		select {
		case <-p.free:
		case err := <-p.failed:
			return err
		case <-late:
			return errors.New("the last records are not acknowledged")
		}
	}
	return nil
}

// send publishes until the load ends. The number of records that were due by then and not sent.
func (p *publisher) send() (uint64, error) {
	for number := uint64(0); ; number++ {
		intended, err := p.due(number)
		if err != nil || !intended.Before(p.clock.to) {
			return 0, errors.Join(err, p.conn.flush())
		}
		place, ok, err := p.place()
		if err != nil {
			return 0, err
		}
		if !ok {
			return p.giveUp(number), nil
		}
		p.intended[place].Store(int64(intended.Sub(p.clock.start)))
		if err := p.conn.publish(p.load.subject, p.replies[place], p.value(number)); err != nil {
			return 0, err
		}
	}
}

// due waits until a record is to be sent: by the rate alone, however late those before it were.
// What is laid into the buffer goes out before it waits.
func (p *publisher) due(number uint64) (time.Time, error) {
	if p.load.rate == 0 {
		return time.Now(), nil
	}
	intended := p.clock.due(number, p.load.rate)
	if wait := time.Until(intended); wait > 0 {
		if err := p.conn.flush(); err != nil {
			return intended, err
		}
		time.Sleep(max(wait, tick))
	}
	return intended, nil
}

// place takes one of the window; none if the load ends first.
func (p *publisher) place() (int, bool, error) {
	select {
	case place := <-p.free:
		return place, true, nil
	default:
	}
	if err := p.conn.flush(); err != nil {
		return 0, false, err
	}
	select {
	case place := <-p.free:
		return place, true, nil
	case <-time.After(time.Until(p.clock.to)):
		return 0, false, nil
	}
}

func (p *publisher) giveUp(number uint64) uint64 {
	unsent := uint64(0)
	for p.load.rate > 0 {
		intended := p.clock.due(number+unsent, p.load.rate)
		if !intended.Before(p.clock.to) {
			break
		}
		p.tally.late(intended, &p.clock)
		unsent++
	}
	return unsent
}

func (p *publisher) value(number uint64) []byte {
	at := int(number * 4093 % (4 << 20))
	return p.values[at : at+p.load.recordBytes]
}

// collect counts acknowledgements, and gives their places back.
func (p *publisher) collect() error {
	var ack message
	var buffer []byte
	for {
		if err := p.conn.next(&ack, &buffer); err != nil {
			return err
		}
		place, err := strconv.Atoi(string(bytes.TrimPrefix(ack.subject, []byte(inbox))))
		if err != nil || place < 0 || place >= len(p.replies) {
			return fmt.Errorf("an acknowledgement of nothing: %s", ack.subject)
		}
		if ack.hasHeader || !bytes.Contains(ack.payload, []byte("\"seq\":")) {
			return fmt.Errorf("refused: %s", ack.payload)
		}
		intended := p.clock.start.Add(time.Duration(p.intended[place].Load()))
		p.tally.acknowledged(intended, time.Now(), p.load, &p.clock)
		p.free <- place
	}
}

func (p *publisher) report(client, server float64, unsent uint64) (*produced, error) {
	records, latency := p.tally.done()
	if records == 0 {
		return nil, errors.New("nothing was acknowledged while it counted")
	}
	size := records * uint64(p.load.recordBytes)
	seconds := p.load.duration.Seconds()
	gigabytes := float64(size) / 1e9
	return &produced{
		Kind: "produce", Records: records, Bytes: size, Seconds: seconds,
		RecordsPerSecond: uint64(float64(records) / seconds),
		BytesPerSecond:   uint64(float64(size) / seconds),
		percentiles:      latency,
		Unsent:           unsent,
		ClientCPU:        client / gigabytes,
		ServerCPU:        server / gigabytes,
	}, nil
}
