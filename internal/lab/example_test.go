package lab_test

import (
	"context"
	"fmt"
	"os"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// A program that needs a lab starts itself once more, in a sandbox.
func Example() {
	if !lab.InSandbox() {
		code, err := lab.Reexec(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	l, err := lab.New(lab.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	ln, err := l.Server.Listen("tcp", lab.ServerIP4+":80")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	c, err := l.Client.DialFrom(context.Background(), "tcp", lab.ClientIP4+":1234", ln.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.LocalAddr(), "->", c.RemoteAddr())
	// Output: 198.18.1.2:1234 -> 198.18.2.2:80
}
