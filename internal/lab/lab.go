package lab

import (
	"errors"
	"fmt"
)

// The addresses of a lab.
const (
	ClientIP4 = "198.18.1.2"
	ClientIP6 = "2001:db8:1::2"

	// ProxyClientIP4 and ProxyClientIP6 are the proxy's on the client's side.
	ProxyClientIP4 = "198.18.1.1"
	ProxyClientIP6 = "2001:db8:1::1"
	// ProxyServerIP4 and ProxyServerIP6 are the proxy's on the server's side.
	ProxyServerIP4 = "198.18.2.1"
	ProxyServerIP6 = "2001:db8:2::1"

	ServerIP4   = "198.18.2.2"
	ServerIP6   = "2001:db8:2::2"
	Server2IP4  = "198.18.2.3"
	Server2IP6  = "2001:db8:2::3"
	ForeignIP4  = "198.18.3.1" // a destination for intercept
	ForeignIP6  = "2001:db8:3::1"
	VIP4        = "203.0.113.10" // nobody's, reached over the proxy
	VIP6        = "2001:db8:f::10"
	ForeignNet4 = "198.18.3.0/24"
	ForeignNet6 = "2001:db8:3::/64"

	// ClientRange4 and ClientRange6 are further addresses of the client, which
	// any of its sockets may bind.
	ClientRange4 = "198.18.16.0/20"
	ClientRange6 = "2001:db8:16::/64"
)

// The interfaces of a lab. Client and server have EndLink, the proxy the
// other two.
const (
	EndLink    = "eth0"
	ClientLink = "lab-client"
	ServerLink = "lab-server"
)

// Config of a lab.
type Config struct {
	// MTU of all links; 0 means 1500.
	MTU int
}

// Lab is a client, a proxy and a server. See the package's documentation.
type Lab struct {
	Client, Proxy, Server *Host

	before *state // of the proxy
}

// New builds a lab around the sandbox that this process is in. One lab can
// exist at a time.
func New(cfg Config) (*Lab, error) {
	if !InSandbox() {
		return nil, fmt.Errorf("make lab: %w", ErrNoSandbox)
	}
	if cfg.MTU == 0 {
		cfg.MTU = 1500
	}
	l := &Lab{}
	if err := l.build(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("make lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(cfg Config) (err error) {
	if l.Proxy, err = thisHost("proxy"); err != nil {
		return fmt.Errorf("open own namespace: %w", err)
	}
	if l.before, err = l.Proxy.state(); err != nil {
		return err
	}
	if l.Client, err = newHost("client"); err != nil {
		return err
	}
	if l.Server, err = newHost("server"); err != nil {
		return err
	}
	for _, h := range []*Host{l.Client, l.Proxy, l.Server} {
		if err := h.prepare(); err != nil {
			return err
		}
	}
	if err := l.Proxy.addVeth(ClientLink, l.Client, cfg.MTU); err != nil {
		return err
	}
	if err := l.Proxy.addVeth(ServerLink, l.Server, cfg.MTU); err != nil {
		return err
	}
	return l.address()
}

// Close takes the lab down: its links and namespaces, and whatever rules,
// policy routes and nftables were added in the proxy since New. Sockets and
// programs in the lab should have ended before.
func (l *Lab) Close() error {
	var errs []error
	if l.before != nil {
		errs = append(errs, l.Proxy.restore(l.before))
	}
	for _, h := range []*Host{l.Client, l.Server, l.Proxy} {
		if h != nil {
			errs = append(errs, h.close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close lab: %w", err)
	}
	return nil
}
