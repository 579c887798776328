package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// outsideEnv tells the program in the sandbox that it has got a listener in
// the network namespace that it came from, and which user namespace that was.
const outsideEnv = "TPROXYD_DEMO_OUTSIDE"

// reexec starts the demo in a sandbox. To hold it, it takes along a listener
// on the loopback of the host, on the admin port or, where that is taken, on
// any.
func reexec(ctx context.Context, hold bool) (code int, err error) {
	if !hold {
		return lab.Reexec(ctx)
	}
	ln, err := net.Listen("tcp", adminAddress)
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return 1, fmt.Errorf("listen for the admin page: %w", err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return 1, err
	}
	defer func() { _ = f.Close() }() // a duplicate, which the sandbox has by then
	user, err := os.Readlink("/proc/self/ns/user")
	if err == nil {
		err = os.Setenv(outsideEnv, user)
	}
	if err != nil {
		return 1, err
	}
	return lab.Reexec(ctx, f)
}

// outside is the way from the host to the admin page. A nil one is none.
type outside struct {
	ln   net.Listener
	user string // namespace
	stop context.CancelFunc
	done sync.WaitGroup
}

// takeOutside takes over what reexec has left, and has to come before any
// program is started, which would inherit it too.
func takeOutside() (*outside, error) {
	const first = 3 // of the extra files of lab.Reexec
	o := &outside{user: os.Getenv(outsideEnv)}
	if o.user == "" {
		return nil, nil //nolint:nilnil // documented: none
	}
	f := os.NewFile(first, "outside")
	ln, err := net.FileListener(f)
	if err := errors.Join(err, f.Close(), os.Unsetenv(outsideEnv)); err != nil {
		return nil, fmt.Errorf("take over the listener outside: %w", err)
	}
	o.ln = ln
	var ctx context.Context
	ctx, o.stop = context.WithCancel(context.Background())
	o.done.Go(func() { o.forward(ctx) })
	return o, nil
}

func (o *outside) close() error {
	if o == nil {
		return nil
	}
	o.stop()
	err := o.ln.Close()
	o.done.Wait()
	return err
}

// forward connects everyone who comes with the daemon's admin address.
func (o *outside) forward(ctx context.Context) {
	for {
		c, err := o.ln.Accept()
		if err != nil {
			return // closed
		}
		o.done.Go(func() { join(ctx, c) })
	}
}

// join copies both ways until either side ends or ctx does.
func join(ctx context.Context, outside net.Conn) {
	defer outside.Close()
	var dialer net.Dialer
	inside, err := dialer.DialContext(ctx, "tcp", adminAddress)
	if err != nil {
		return
	}
	defer inside.Close()
	ended := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
		wg.Go(func() {
			// An error ends it like an end does.
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		})
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	_ = errors.Join(inside.Close(), outside.Close())
	wg.Wait()
}

// hold keeps everything as it is until ctx ends, and says how to use it.
func (d *demo) hold(ctx context.Context) {
	d.out.step("The lab stays until Ctrl-C")
	if d.outside != nil {
		d.out.say("admin page: http://%s/", d.outside.ln.Addr())
	}
	for _, h := range []*lab.Host{d.lab.Client, d.lab.Proxy, d.lab.Server} {
		d.out.say("%-7s %s", h.Name+":", d.enter(h))
	}
	d.out.say("there, in the client, try: curl 'http://%s/' 'http://[%s]/' 'http://%s/'", lab.VIP4, lab.VIP6, lab.ForeignIP4)
	d.out.say("                      and: dig @%s %s TXT", lab.VIP4, dnsName)
	<-ctx.Done()
}

// enter is the command that opens a shell in a host of the lab.
func (d *demo) enter(h *lab.Host) string {
	words := []string{"nsenter"}
	if own, err := os.Readlink("/proc/self/ns/user"); err == nil && d.outside != nil && own != d.outside.user {
		words = append(words, fmt.Sprintf("--target %d --user --preserve-credentials", os.Getpid()))
	}
	return strings.Join(append(words, "--net="+h.NetNSPath()), " ")
}
