package demo

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	backendPort = "8080" // of the backends, with HTTP
	foreignPort = "80"   // of the foreign server, with HTTP
	dnsPort     = "53"   // of all of them, with DNS
	resetPort   = "7001"
	shutPort    = "7002"
	echoPort    = "7003"
)

// sighting is what a server tells of a request.
type sighting struct {
	Server      string `json:"server"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
}

// receipt is what a server tells of an upload.
type receipt struct {
	Bytes  int64  `json:"bytes"`
	CRC32C string `json:"crc32c"`
}

// servers is everything that runs on the lab's server.
type servers struct {
	closers []io.Closer
	done    sync.WaitGroup
	spare   *http.Server

	// shut gets what the server read after its own FIN.
	shut chan string
}

// dnsServers are the names of the name servers, by their addresses.
func dnsServers() map[string]string {
	return map[string]string{
		net.JoinHostPort(lab.ServerIP4, dnsPort):  "backend-1",
		net.JoinHostPort(lab.Server2IP4, dnsPort): "backend-2",
		net.JoinHostPort(lab.ServerIP6, dnsPort):  "backend-1",
		net.JoinHostPort(lab.Server2IP6, dnsPort): "backend-2",
		net.JoinHostPort(lab.ForeignIP4, dnsPort): "foreign",
		net.JoinHostPort(lab.ForeignIP6, dnsPort): "foreign",
	}
}

func startServers(host *lab.Host) (*servers, error) {
	s := &servers{shut: make(chan string, 1)}
	web := map[string]string{
		net.JoinHostPort(lab.ServerIP4, backendPort):  "backend-1",
		net.JoinHostPort(lab.Server2IP4, backendPort): "backend-2",
		net.JoinHostPort(lab.ServerIP6, backendPort):  "backend-1",
		net.JoinHostPort(lab.Server2IP6, backendPort): "backend-2",
		net.JoinHostPort(lab.ForeignIP4, foreignPort): "foreign",
		net.JoinHostPort(lab.ForeignIP6, foreignPort): "foreign",
	}
	for address, name := range web {
		if _, err := s.web(host, address, name); err != nil {
			s.close()
			return nil, err
		}
	}
	if err := s.startPools(host); err != nil {
		s.close()
		return nil, err
	}
	for address, name := range dnsServers() {
		pc, err := host.ListenPacket("udp", address)
		if err != nil {
			s.close()
			return nil, err
		}
		s.closers = append(s.closers, pc)
		s.done.Go(func() { serveDNS(pc, name) })
	}
	scripts := map[string]func(*net.TCPConn) error{
		resetPort: serveReset, shutPort: s.serveShut, echoPort: serveEcho,
	}
	for port, script := range scripts {
		for _, ip := range []string{lab.ForeignIP4, lab.ForeignIP6} {
			if err := s.script(host, net.JoinHostPort(ip, port), script); err != nil {
				s.close()
				return nil, err
			}
		}
	}
	return s, nil
}

func (s *servers) close() {
	for _, c := range s.closers {
		_ = c.Close() // nothing is left to be said
	}
	s.done.Wait()
}

func (s *servers) accept(ln net.Listener, script func(*net.TCPConn) error) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return // closed
		}
		s.done.Go(func() {
			defer c.Close()
			// What goes wrong here is seen at the client's end.
			if c.SetDeadline(time.Now().Add(totalLimit)) == nil {
				_ = script(c.(*net.TCPConn))
			}
		})
	}
}

func handler(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		answer(w, sighting{Server: name, Source: r.RemoteAddr, Destination: fmt.Sprint(local)})
	})
	mux.HandleFunc("GET /bulk", serveDownload)
	mux.HandleFunc("PUT /bulk", func(w http.ResponseWriter, r *http.Request) {
		hash := newHash()
		n, err := io.Copy(hash, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, receipt{Bytes: n, CRC32C: hex.EncodeToString(hash.Sum(nil))})
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // seen at the client's end
}

// serveDownload sends bytes and then, in a trailer, their checksum.
func serveDownload(w http.ResponseWriter, r *http.Request) {
	total, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", "X-Crc32c")
	src := newSource(total)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, src, make([]byte, blockSize)); err != nil {
		return // seen at the client's end
	}
	w.Header().Set("X-Crc32c", src.sum())
}

// serveReset answers a line and then, after another, resets the connection.
func serveReset(c *net.TCPConn) error {
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "part\n"); err != nil {
		return err
	}
	_, err := r.ReadString('\n')
	return errors.Join(err, c.SetLinger(0))
}

// serveShut ends its direction first and goes on reading.
func (s *servers) serveShut(c *net.TCPConn) error {
	if _, err := io.WriteString(c, "only this\n"); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(c)
	if err != nil {
		rest = []byte(err.Error())
	}
	s.shut <- string(rest)
	return nil
}

// serveEcho answers line by line, and with a farewell after the client's FIN.
func serveEcho(c *net.TCPConn) error {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			_, err = io.WriteString(c, line+"farewell\n")
			return err
		}
		if err != nil {
			return err
		}
		if _, err := io.WriteString(c, line); err != nil {
			return err
		}
	}
}
