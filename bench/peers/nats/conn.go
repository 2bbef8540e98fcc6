package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	dialPatience = 10 * time.Second
	bufferBytes  = 256 << 10
	payloadMax   = 8 << 20
)

// conn is a connection that may be written to by several goroutines and is read by one.
type conn struct {
	socket net.Conn
	reader *bufio.Reader
	lock   sync.Mutex
	writer *bufio.Writer
}

// message is one that was delivered. It is valid until the next is read.
type message struct {
	subject []byte
	// hasHeader tells JetStream's own words, such as "no messages", from records.
	hasHeader bool
	payload   []byte
}

func dial(address string) (*conn, error) {
	socket, err := net.DialTimeout("tcp", address, dialPatience)
	if err != nil {
		return nil, err
	}
	c := &conn{
		socket: socket,
		reader: bufio.NewReaderSize(socket, bufferBytes),
		writer: bufio.NewWriterSize(socket, bufferBytes),
	}
	return c, c.write("CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n")
}

// write sends at once.
func (c *conn) write(text string) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.writer.WriteString(text)
	return c.writer.Flush()
}

func (c *conn) flush() error {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.writer.Flush()
}

// publish lays a record into the buffer, which is sent when it is full or flushed.
func (c *conn) publish(subject, reply string, payload []byte) error {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.writer.WriteString("PUB ")
	c.writer.WriteString(subject)
	c.writer.WriteByte(' ')
	c.writer.WriteString(reply)
	c.writer.WriteByte(' ')
	c.writer.WriteString(strconv.Itoa(len(payload)))
	c.writer.WriteString("\r\n")
	c.writer.Write(payload)
	_, err := c.writer.WriteString("\r\n")
	return err
}

// next waits for a message, and answers what else the server says.
func (c *conn) next(into *message, buffer *[]byte) error {
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")), bytes.HasPrefix(line, []byte("HMSG ")):
			return c.body(line, into, buffer)
		case bytes.Equal(line, []byte("PING")):
			if err := c.write("PONG\r\n"); err != nil {
				return err
			}
		case bytes.HasPrefix(line, []byte("-ERR")):
			return fmt.Errorf("the server says %s", line)
		}
	}
}

// body reads what follows `MSG subject sid [reply] bytes` or
// `HMSG subject sid [reply] header-bytes bytes`.
func (c *conn) body(line []byte, into *message, buffer *[]byte) error {
	into.hasHeader = line[0] == 'H'
	fields := bytes.Fields(line)
	if len(fields) < 4 {
		return fmt.Errorf("not as the protocol says: %q", line)
	}
	size, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil || size < 0 || size > payloadMax {
		return fmt.Errorf("not as the protocol says: %q", line)
	}
	subject := len(fields[1])
	need := subject + size + 2
	if cap(*buffer) < need {
		*buffer = make([]byte, need)
	}
	whole := (*buffer)[:need]
	copy(whole, fields[1])
	if _, err := io.ReadFull(c.reader, whole[subject:]); err != nil {
		return err
	}
	into.subject, into.payload = whole[:subject], whole[subject:subject+size]
	return nil
}
