package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/tproxyd/tproxyd/internal/admin"
)

const (
	extcapName      = "tproxyd-extcap"
	extcapInterface = "tproxyd"
)

// isExtcap reports whether the program was called by the name of the capture
// program, a link in Wireshark's directory of them.
func isExtcap(argv0 string) bool { return strings.HasSuffix(filepath.Base(argv0), extcapName) }

// extcapFlags are the command line that Wireshark gives to its capture programs;
// see its documentation, "Adding Capture Interfaces And Log Sources Using Extcap".
type extcapFlags struct {
	interfaces, dlts, config, capture bool
	device, fifo                      string
}

func cmdExtcap(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("extcap", flag.ContinueOnError)
	to, packets := addClientFlags(fs), addFlowFlags(fs)
	x := &extcapFlags{}
	fs.BoolVar(&x.interfaces, "extcap-interfaces", false, "list the interfaces")
	fs.BoolVar(&x.dlts, "extcap-dlts", false, "list the link types of the interface")
	fs.BoolVar(&x.config, "extcap-config", false, "list the settings of the interface")
	fs.BoolVar(&x.capture, "capture", false, "capture")
	fs.StringVar(&x.device, "extcap-interface", "", "`name` of the interface: "+extcapInterface)
	fs.StringVar(&x.fifo, "fifo", "", "write packets to this `path`")
	fs.StringVar(&packets.filter, "extcap-capture-filter", "", "only packets that match this `expression`")
	fs.String("extcap-version", "", "`version` of Wireshark, which makes no difference")
	err := parse(e, fs, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(e.stdout, "For Wireshark to find it: ln -s $(command -v tproxyd) ~/.local/lib/wireshark/extcap/%s\n", extcapName)
	}
	if err != nil {
		return err
	}
	if x.interfaces {
		return printExtcapInterfaces(e.stdout)
	}
	if x.device != extcapInterface {
		return usageError{fmt.Errorf("extcap: want --extcap-interfaces, or --extcap-interface %s with --extcap-dlts, --extcap-config or --capture", extcapInterface)}
	}
	switch {
	case x.dlts:
		_, err = fmt.Fprintln(e.stdout, "dlt {number=1}{name=EN10MB}{display=Ethernet}")
		return err
	case x.config:
		return printExtcapConfig(e.stdout)
	case x.capture:
		return extcapCapture(ctx, to, packets, x.fifo)
	}
	// Wireshark asks in this way whether a filter is one: no output is yes.
	if err := checkFilter(packets.filter); err != nil {
		_, err = fmt.Fprintln(e.stdout, err)
		return err
	}
	return nil
}

func printExtcapInterfaces(w io.Writer) error {
	_, err := fmt.Fprintf(w, "extcap {version=%s}\ninterface {value=%s}{display=Flows of tproxyd, both legs}\n", version, extcapInterface)
	return err
}

func printExtcapConfig(w io.Writer) error {
	_, err := fmt.Fprintf(w, `arg {number=0}{call=--config}{display=Configuration file}{tooltip=Says where the daemon listens}{type=fileselect}{mustexist=false}{default=%s}
arg {number=1}{call=--socket}{display=Unix socket}{tooltip=In place of the configured ones}{type=string}
arg {number=2}{call=--service}{display=Service}{tooltip=Empty: all}{type=string}
arg {number=3}{call=--client}{display=Client}{tooltip=Address or prefix; empty: all}{type=string}
arg {number=4}{call=--flow}{display=Flow}{tooltip=Its id, for both legs of one flow; empty: all}{type=string}
arg {number=5}{call=--profile}{display=Packets}{type=selector}{default=payload}
value {arg=5}{value=payload}{display=whole}{default=true}
value {arg=5}{value=headers}{display=headers only}{default=false}
arg {number=6}{call=--all}{display=Packets of no flow, too}{type=boolflag}{default=false}
`, defaultConfig)
	return err
}

// extcapCapture writes to the FIFO that Wireshark reads, until one of the two ends.
func extcapCapture(ctx context.Context, to *clientFlags, packets *packetFlags, fifo string) error {
	if fifo == "" {
		return usageError{errors.New("extcap: --capture needs --fifo")}
	}
	q := packets.query()
	if err := packets.check("extcap", q, admin.ParseLiveQuery); err != nil {
		return err
	}
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open fifo: %w", err)
	}
	err = streamPackets(ctx, to, tapPath+"/live", q, f)
	return errors.Join(err, f.Close())
}
