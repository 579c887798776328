package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const httpPort = 8080

// startNginx serves the directory of the site, and takes uploads.
func (s *site) startNginx() {
	s.t.Helper()
	nginx := netnstest.Need(s.t, "nginx", "nginx")
	config := s.write("nginx.conf", fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
	log_format source "$remote_addr";
	access_log %[1]s/access.log source;
	sendfile on;
	keepalive_requests 1000000;
	client_max_body_size 200m;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	server {
		listen %[2]d;
		listen [::]:%[2]d;
		root %[1]s;
		dav_methods PUT;
	}
}
`, s.dir, httpPort))
	s.server(httpPort, s.Server.Command(s.t.Context(), nginx, "-e", "stderr", "-c", config))
}

func TestHTTP(t *testing.T) {
	curl := netnstest.Need(t, "curl", "curl")
	s := newSite(t, httpPort)
	s.startNginx()
	sums := map[string]string{}
	for name, size := range map[string]int{"1": 1, "1M": 1 << 20, "100M": 100 << 20} {
		_, sums[name] = s.file(name, size)
	}
	upload, uploadSum := s.file("upload", 20<<20)
	common := []string{"--silent", "--show-error", "--fail", "--globoff", "--max-time", "15"}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			s.t = t
			base := "http://" + w.url(httpPort) + "/"
			for _, version := range []string{"--http1.0", "--http1.1"} {
				for name, sum := range sums {
					if name == "100M" && version == "--http1.0" {
						continue // the same way
					}
					s.run(curl, append(common, version, "--output", s.path("got"), base+name)...)
					s.wantSum(s.path("got"), sum)
				}
			}
			// Several requests on one connection.
			args := append(common, "--write-out", "%{num_connects}\n")
			for _, name := range []string{"1", "1M", "1", "1M"} {
				args = append(args, "--output", s.path("got"+name), base+name)
			}
			if out := s.run(curl, args...); out != "1\n0\n0\n0\n" {
				t.Errorf("connections made for four requests: %q, want one", out)
			}
			s.wantSum(s.path("got1"), sums["1"])
			s.wantSum(s.path("got1M"), sums["1M"])

			// With and without waiting for 100 Continue.
			s.run(curl, append(common, "--upload-file", upload, base+"put")...)
			s.wantSum(s.path("put"), uploadSum)
			s.run(curl, append(common, "--request", "PUT", "--header", "Expect:", "--data-binary", "@"+upload, base+"put")...)
			s.wantSum(s.path("put"), uploadSum)

			log, err := os.ReadFile(s.path("access.log"))
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Fields(string(log)); lines[len(lines)-1] != w.client {
				t.Errorf("nginx saw a request from %s, want %s", lines[len(lines)-1], w.client)
			}
		})
	}
	s.t = t
	s.wantEnds()
}

var requests = regexp.MustCompile(`(\d+) requests in `)

func TestWrk(t *testing.T) {
	wrk := netnstest.Need(t, "wrk", "wrk")
	s := newSite(t, httpPort)
	s.startNginx()
	s.file("1k", 1000)
	for _, w := range ways {
		out := s.run(wrk, "--threads", "2", "--connections", "50", "--duration", "1s", "http://"+w.url(httpPort)+"/1k")
		m := requests.FindStringSubmatch(out)
		if m == nil || strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
			t.Errorf("%s: wrk has errors:\n%s", w.name, out)
			continue
		}
		if n, err := strconv.Atoi(m[1]); err != nil || n < 50 {
			t.Errorf("%s: %d requests on 50 connections:\n%s", w.name, n, out)
		}
	}
	s.wantEnds("client_reset") // it ends while answers are on their way
}
