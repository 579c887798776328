package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// fidelity looks at how connections end.
func (d *demo) fidelity(ctx context.Context) {
	d.out.step("Resets and half-closed connections")
	ended, err := d.reset(ctx)
	d.out.say("the server resets in the middle of an answer: the client sees %q", fmt.Sprint(ended))
	d.out.check("reset_passed_on", err == nil && errors.Is(ended, unix.ECONNRESET),
		"after the reset of the server the client reads: %v%s", ended, because(err))

	d.out.outcome("half_close", "whichever side ends first, the other direction goes on", d.halfClose(ctx))
}

// reset returns what ended the client's reading.
func (d *demo) reset(ctx context.Context) (ended, err error) {
	c, err := d.dial(ctx, net.JoinHostPort(lab.ForeignIP4, resetPort))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	if err := sayLine(c, r, "go on\n", "part\n"); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "and now\n"); err != nil {
		return nil, err
	}
	_, ended = r.ReadByte()
	return ended, nil
}

// halfClose ends either direction first, and sends in the other after it.
func (d *demo) halfClose(ctx context.Context) error {
	c, err := d.dial(ctx, net.JoinHostPort(lab.ForeignIP6, echoPort))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "last words"); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if err := readAll(c, "last wordsfarewell\n"); err != nil {
		return fmt.Errorf("read after the FIN of the client: %w", err)
	}

	s, err := d.dial(ctx, net.JoinHostPort(lab.ForeignIP4, shutPort))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := readAll(s, "only this\n"); err != nil {
		return fmt.Errorf("read until the FIN of the server: %w", err)
	}
	if _, err := io.WriteString(s, "and yet"); err != nil {
		return fmt.Errorf("write after the FIN of the server: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	select {
	case rest := <-d.servers.shut:
		if rest != "and yet" {
			return fmt.Errorf("after its FIN the server read %q", rest)
		}
	case <-time.After(d.cfg.step):
		return errors.New("what was sent after the FIN of the server did not arrive")
	}
	return nil
}

func readAll(r io.Reader, want string) error {
	got, err := io.ReadAll(r)
	if err == nil && string(got) != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

// sayLine sends a line and expects another.
func sayLine(c net.Conn, r *bufio.Reader, say, want string) error {
	if err := c.SetDeadline(time.Now().Add(stepLimit)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, say); err != nil {
		return err
	}
	got, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("answer %q, want %q", got, want)
	}
	return nil
}
