package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tick is the finest that is waited for, as by `highwater bench`.
const tick = time.Millisecond

// clock says when a load begins, and from when to when it counts.
type clock struct{ start, from, to time.Time }

func newClock(load *options) clock {
	start := time.Now()
	from := start.Add(load.warmUp)
	return clock{start, from, from.Add(load.duration)}
}

// due is when a record is to be sent at a rate.
func (c *clock) due(number uint64, rate int) time.Time {
	whole, rest := number/uint64(rate), number%uint64(rate)
	return c.start.Add(time.Duration(whole)*time.Second + time.Duration(rest)*time.Second/time.Duration(rate))
}

func (c *clock) holds(at time.Time) bool { return !at.Before(c.from) && at.Before(c.to) }

// tally is what was acknowledged while it counted.
type tally struct {
	lock      sync.Mutex
	records   uint64
	latencies []uint32
}

func (t *tally) acknowledged(intended, now time.Time, load *options, clock *clock) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if clock.holds(now) {
		t.records++
	}
	// At a fixed rate the late ones count too: those that were to be sent in time.
	counts := now
	if load.rate > 0 {
		counts = intended
	}
	if clock.holds(counts) {
		t.latencies = append(t.latencies, micros(now.Sub(intended)))
	}
}

// late counts a record that was never sent as one that took until the load's end.
func (t *tally) late(intended time.Time, clock *clock) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if clock.holds(intended) {
		t.latencies = append(t.latencies, micros(clock.to.Sub(intended)))
	}
}

func (t *tally) done() (uint64, percentiles) {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.records, percentilesOf(t.latencies)
}

func micros(latency time.Duration) uint32 {
	return uint32(min(max(latency.Microseconds(), 1), math.MaxUint32))
}

type percentiles struct {
	P50  uint32 `json:"p50_us"`
	P90  uint32 `json:"p90_us"`
	P99  uint32 `json:"p99_us"`
	P999 uint32 `json:"p999_us"`
	Max  uint32 `json:"max_us"`
}

// percentilesOf sorts the latencies. The least of which at least so many are no longer.
func percentilesOf(latencies []uint32) percentiles {
	if len(latencies) == 0 {
		return percentiles{}
	}
	slices.Sort(latencies)
	at := func(share float64) uint32 {
		rank := int(math.Ceil(share * float64(len(latencies))))
		return latencies[max(rank, 1)-1]
	}
	return percentiles{at(0.5), at(0.9), at(0.99), at(0.999), at(1)}
}

// meter adds up processor time from when it was started.
type meter struct {
	servers []int
	client  float64
	server  float64
}

func startMeter(servers []int) (*meter, error) {
	m := &meter{servers: servers}
	var err error
	m.client, m.server, err = m.used()
	return m, err
}

// used is in seconds, of this process and of the servers.
func (m *meter) used() (client, server float64, err error) {
	if client, err = cpuSeconds(os.Getpid()); err != nil {
		return 0, 0, err
	}
	for _, pid := range m.servers {
		seconds, err := cpuSeconds(pid)
		if err != nil {
			return 0, 0, err
		}
		server += seconds
	}
	return client - m.client, server - m.server, nil
}

// cpuSeconds reads fields 14 and 15 of proc_pid_stat(5), in ticks of 1/100 s.
func cpuSeconds(pid int) (float64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%s is not as proc_pid_stat(5) says", path)
	}
	user, err := strconv.ParseUint(fields[11], 10, 63)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(fields[12], 10, 63)
	return float64(user+system) / 100, err
}
