package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/sys"
	"golang.org/x/sys/unix"
)

// Some tests need processes of their own: for a descriptor limit, or for more
// sockets than one process may have. They run this test binary once more, in a
// host of the lab, with TestChild as the only test. It does what a line of its
// standard input says and answers each line with one of JSON, until the input
// ends.

const (
	childEnv    = "PROXY_TEST_CHILD"
	childAnswer = "child: "
)

// childPort is not the port of other tests: thousands of connections to it stay
// in TIME_WAIT when the test is over, in the host that the next lab's proxy is
// on as well.
const childPort = 8009

// childOrder is what a child is to be.
type childOrder struct {
	Role  string // proxy, clients or server
	Limit uint64 // RLIMIT_NOFILE; 0: as it is
	IP    string // of the service
	Max   int    // MaxConnections
	N     int    // clients
}

// childState is a child's answer.
type childState struct {
	Err              string
	Done             int // clients that had an answer
	Descriptors      int
	RSS              int64 // bytes
	CPU              time.Duration
	Limit            int64
	Active, Accepted int64
	Pauses           map[string]uint64
	Closed           map[string]uint64
	Metrics          int // families a scrape found
}

// child is the parent's end.
type child struct {
	t   *testing.T
	cmd *lab.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, h *lab.Host, o childOrder) *child {
	t.Helper()
	order, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: h.Command(t.Context(), "/proc/self/exe", "-test.run=^TestChild$", "-test.timeout=2m")}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(order))
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	c.do("state")
	return c
}

// stop ends the child, which fails if it leaves anything behind.
func (c *child) stop() {
	if c.in == nil {
		return
	}
	c.in.Close()
	c.in = nil
	for c.out.Scan() {
		if c.out.Text() != "PASS" {
			c.t.Log(c.out.Text())
		}
	}
	// The context of a test that is over kills the child, if it comes to that.
	if err := c.cmd.Wait(); err != nil && c.t.Context().Err() == nil {
		c.t.Errorf("child: %v", err)
	}
}

func (c *child) do(line string) childState {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		c.t.Fatal(err)
	}
	for c.out.Scan() {
		text, ok := strings.CutPrefix(c.out.Text(), childAnswer)
		if !ok {
			c.t.Log(c.out.Text())
			continue
		}
		var s childState
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			c.t.Fatal(err)
		}
		if s.Err != "" {
			c.t.Fatalf("child: %s: %s", line, s.Err)
		}
		return s
	}
	c.t.Fatalf("child has ended before it answered %q", line)
	return childState{}
}

func TestChild(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		return // only a child has something to do here
	}
	var o childOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if o.Limit > 0 {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: o.Limit, Max: o.Limit}); err != nil {
			t.Fatal(err)
		}
	}
	roles := map[string]func(*testing.T, childOrder) func(string) childState{
		"proxy": childProxy, "clients": childClients, "server": childServer,
	}
	answer := roles[o.Role](t, o)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		out, err := json.Marshal(answer(lines.Text()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s%s\n", childAnswer, out)
	}
}

// childProxy is a proxy with the service web on one address. "fill N" takes all
// descriptors but N, "free" gives them back.
func childProxy(t *testing.T, o childOrder) func(string) childState {
	p, err := New(Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	s := vip("web", childPort)
	s.Listen = []netip.AddrPort{addrPort(o.IP, childPort)}
	s.Source = ClientIP
	if err := p.Apply(Config{Services: []Service{s}, MaxConnections: o.Max}); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(p))
	var taken []int
	free := func() {
		for _, fd := range taken {
			sys.Close(fd)
		}
		taken = nil
	}
	t.Cleanup(free)
	return func(line string) childState {
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "fill":
			leave, err := strconv.Atoi(arg)
			if err != nil {
				return childState{Err: err.Error()}
			}
			for {
				fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					break // EMFILE is what we want
				}
				taken = append(taken, fd)
			}
			for range leave {
				sys.Close(taken[len(taken)-1])
				taken = taken[:len(taken)-1]
			}
		case "free":
			free()
		}
		return proxyState(p, registry)
	}
}

// proxyState needs no descriptor unless there are some left.
func proxyState(p *Proxy, g prometheus.Gatherer) childState {
	s := childState{Limit: p.Limits().MaxConnections, Active: p.Active(), Pauses: map[string]uint64{}, Closed: map[string]uint64{}}
	for _, w := range p.workers {
		for i := range pauseCount {
			s.Pauses[pauseNames[i]] += w.stats.pauses[i].Load()
		}
	}
	for _, st := range p.view.Load().stats {
		for _, sh := range st.shards {
			s.Accepted += int64(sh.accepted.Load())
			for r := range reasonCount {
				if n := sh.closed[r].Load(); n > 0 {
					s.Closed[r.String()] += n
				}
			}
		}
	}
	families, err := g.Gather()
	if err != nil {
		s.Err = err.Error()
	}
	s.Metrics = len(families)
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		s.Err = err.Error()
	}
	s.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	s.Descriptors, err = sys.OpenDescriptors()
	if err != nil {
		return s // there is none left to ask with
	}
	status, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		s.Err = err.Error()
		return s
	}
	if _, err := fmt.Sscan(strings.Fields(string(status))[1], &s.RSS); err != nil {
		s.Err = err.Error()
	}
	s.RSS *= int64(os.Getpagesize())
	return s
}

// childClients holds N connections to the service. "ping" uses each once.
func childClients(t *testing.T, o childOrder) func(string) childState {
	var conns []net.Conn
	t.Cleanup(func() {
		for _, c := range conns {
			c.Close()
		}
	})
	dialer := net.Dialer{Timeout: patience}
	dialer.SetMultipathTCP(false)
	for range o.N {
		c, err := dialer.DialContext(t.Context(), "tcp", addrPort(o.IP, childPort).String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	return func(line string) (s childState) {
		if line != "ping" {
			return s
		}
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(patience))
			if err := ping(c); err != nil {
				s.Err = fmt.Sprintf("client %d: %v", s.Done, err)
				return s
			}
			s.Done++
		}
		return s
	}
}

// childServer sends back what it gets.
func childServer(t *testing.T, _ childOrder) func(string) childState {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp", fmt.Sprint(":", childPort))
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				// Hiding the types keeps Go from splice, for which it would hold a
				// pipe.
				_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 64))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return func(string) childState { return childState{} }
}
