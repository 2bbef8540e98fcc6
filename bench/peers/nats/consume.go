package main

import (
	"fmt"
	"time"
)

const (
	// What one request asks for, and how many requests are open: so the server never waits.
	pullBatch    = 1_000
	pullsOpen    = 4
	pullPatience = 30 * time.Second
)

var deliveries = inbox + "read"

type consumed struct {
	Kind             string  `json:"kind"`
	Records          uint64  `json:"records"`
	Bytes            uint64  `json:"bytes"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond uint64  `json:"records_per_second"`
	BytesPerSecond   uint64  `json:"bytes_per_second"`
	ClientCPU        float64 `json:"client_cpu_seconds_per_gb"`
	ServerCPU        float64 `json:"server_cpu_seconds_per_gb"`
}

// consume reads as many records as it is told to from a pull consumer.
func consume(load *options) (*consumed, error) {
	c, err := dial(load.address)
	if err != nil {
		return nil, err
	}
	defer c.socket.Close()
	if err := c.write("SUB " + deliveries + " 1\r\n"); err != nil {
		return nil, err
	}
	meter, err := startMeter(load.serverPids)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	size, err := read(c, load)
	if err != nil {
		return nil, err
	}
	seconds := time.Since(start).Seconds()
	client, server, err := meter.used()
	gigabytes := float64(size) / 1e9
	return &consumed{
		Kind: "consume", Records: load.records, Bytes: size, Seconds: seconds,
		RecordsPerSecond: uint64(float64(load.records) / seconds),
		BytesPerSecond:   uint64(float64(size) / seconds),
		ClientCPU:        client / gigabytes,
		ServerCPU:        server / gigabytes,
	}, err
}

func read(c *conn, load *options) (size uint64, err error) {
	var record message
	var buffer []byte
	for range pullsOpen {
		if err := pull(c, load); err != nil {
			return 0, err
		}
	}
	for got := uint64(1); got <= load.records; got++ {
		if err := c.next(&record, &buffer); err != nil {
			return 0, err
		}
		if record.hasHeader {
			return 0, fmt.Errorf("%d of %d records, then %q", got-1, load.records, record.payload)
		}
		size += uint64(len(record.payload))
		if got%pullBatch == 0 {
			if err := pull(c, load); err != nil {
				return 0, err
			}
		}
	}
	return size, nil
}

// pull asks for more; some of what it asked for must then come in time.
func pull(c *conn, load *options) error {
	next := fmt.Sprintf("$JS.API.CONSUMER.MSG.NEXT.%s.%s", load.stream, load.consumer)
	if err := c.publish(next, deliveries, []byte(fmt.Sprintf("{\"batch\":%d}", pullBatch))); err != nil {
		return err
	}
	if err := c.socket.SetReadDeadline(time.Now().Add(pullPatience)); err != nil {
		return err
	}
	return c.flush()
}
