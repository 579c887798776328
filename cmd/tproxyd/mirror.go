package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/proxy"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
	"go.uber.org/zap"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// mirrors are those that run, of either engine.
type mirrors struct {
	log   *zap.Logger
	swept bool // what a crash left in the kernel is gone

	mu      sync.Mutex // metrics read what runs
	running []*runningMirror
}

// runningMirror is one of them.
type runningMirror struct {
	mirror.Counted
	config     config.Mirror
	expression string

	user   *mirror.Mirror // nil with the kernel's engine
	rings  []*ringcap.Ring
	cancel context.CancelFunc
	wg     sync.WaitGroup

	kernel *mirror.Kernel
}

// mirrorMove is a change from one set of mirrors to another, with all that can
// fail behind it.
type mirrorMove struct {
	mirrors *mirrors
	next    []*runningMirror
	fresh   []*runningMirror // of next, not started yet
	filters []func()         // to change in those that stay
}

// mirrorDescriptors is how many descriptors the mirrors of c take.
func mirrorDescriptors(c *config.Config) (n int) {
	for _, m := range c.Mirrors {
		n += 2 + 2*len(m.Interfaces)
	}
	return n
}

// The ring of an interface that is mirrored: 32 MiB are 13 ms at 20 Gbit/s.
const (
	mirrorBlock  = 1 << 20
	mirrorBlocks = 32
)

// prepare opens what c asks for beyond what runs, which stays as it is until the
// move is committed.
func (ms *mirrors) prepare(c *config.Config, p proxy.Config) (*mirrorMove, error) {
	move := &mirrorMove{mirrors: ms}
	excluded, err := exclusions(c.Mirrors)
	if err != nil {
		return nil, err
	}
	for _, m := range c.Mirrors {
		if err := move.add(m, expressionOf(m, p.Services, excluded)); err != nil {
			move.discard()
			return nil, err
		}
	}
	return move, nil
}

func (mv *mirrorMove) add(m config.Mirror, expression string) error {
	program, err := programOf(m, expression)
	if err != nil {
		return err
	}
	for _, r := range mv.mirrors.running {
		if !reflect.DeepEqual(r.config, m) || r.kernel != nil && r.expression != expression {
			continue
		}
		if r.expression != expression {
			mv.filters = append(mv.filters, func() { mv.mirrors.refilter(r, expression, program) })
		}
		mv.next = append(mv.next, r)
		return nil
	}
	r := &runningMirror{config: m, expression: expression}
	if m.Engine == config.EngineKernel {
		err = mv.mirrors.install(r, program)
	} else {
		err = r.open(program)
	}
	if err != nil {
		return err
	}
	mv.next, mv.fresh = append(mv.next, r), append(mv.fresh, r)
	return nil
}

// install has the kernel mirror.
func (ms *mirrors) install(r *runningMirror, program []bpf.RawInstruction) (err error) {
	if !ms.swept {
		err = mirror.Sweep()
		ms.swept = err == nil
	}
	if err == nil {
		r.kernel, err = mirror.Install(mirror.KernelConfig{
			Name: r.config.Name, Interfaces: r.config.Interfaces, To: r.config.ToInterface, Filter: program,
		})
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf(`engine = "kernel" of mirror %q needs CAP_NET_ADMIN: %w`, r.config.Name, err)
	}
	r.Counted = r.kernel
	return err
}

// open makes the mirror and its rings.
func (r *runningMirror) open(program []bpf.RawInstruction) (err error) {
	if r.user, err = mirror.New(toMirror(r.config)); err != nil {
		return err
	}
	r.Counted = r.user
	for _, name := range r.config.Interfaces {
		ring, err := ringcap.Open(ringcap.Config{Interface: name, Filter: program, BlockSize: mirrorBlock, Blocks: mirrorBlocks})
		if err != nil {
			return errors.Join(fmt.Errorf("mirror %q: %w", r.config.Name, err), r.close())
		}
		r.rings = append(r.rings, ring)
	}
	return nil
}

// start begins to mirror.
func (r *runningMirror) start(log *zap.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	for _, ring := range r.rings {
		r.wg.Add(1)
		go r.run(ctx, ring, log)
	}
}

func (r *runningMirror) run(ctx context.Context, ring *ringcap.Ring, log *zap.Logger) {
	defer r.wg.Done()
	if err := r.user.Run(ctx, ring); err != nil {
		log.Error("an interface is not mirrored any more", zap.String("mirror", r.config.Name), zap.Error(err))
	}
}

// close ends it; what was captured by now is still sent.
func (r *runningMirror) close() error {
	if r.kernel != nil {
		return r.kernel.Close()
	}
	if r.cancel != nil {
		r.cancel()
		r.wg.Wait()
	}
	errs := []error{r.user.Close()}
	for _, ring := range r.rings {
		errs = append(errs, ring.Close())
	}
	return errors.Join(errs...)
}

// refilter changes what a mirror takes, without a gap.
func (ms *mirrors) refilter(r *runningMirror, expression string, program []bpf.RawInstruction) {
	for _, ring := range r.rings {
		if err := ring.SetFilter(program); err != nil {
			ms.log.Error("the mirror keeps its old filter", zap.String("mirror", r.config.Name), zap.Error(err))
			return
		}
	}
	r.expression = expression
}

// discard closes what prepare has opened.
func (mv *mirrorMove) discard() {
	mv.mirrors.end(mv.fresh)
}

// commit starts the new mirrors, and only then ends those they replace.
func (mv *mirrorMove) commit() {
	ms := mv.mirrors
	for _, change := range mv.filters {
		change()
	}
	for _, r := range mv.fresh {
		r.start(ms.log)
		ms.log.Info("mirroring", zap.String("mirror", r.config.Name), zap.Strings("interfaces", r.config.Interfaces),
			zap.String("engine", string(r.config.Engine)), zap.String("filter", r.expression))
	}
	var ended []*runningMirror
	for _, r := range ms.running {
		if !slices.Contains(mv.next, r) {
			ended = append(ended, r)
		}
	}
	ms.set(mv.next)
	ms.end(ended)
}

func (ms *mirrors) set(running []*runningMirror) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.running = running
}

func (ms *mirrors) end(all []*runningMirror) {
	for _, r := range all {
		if err := r.close(); err != nil {
			ms.log.Error("close", zap.String("mirror", r.config.Name), zap.Error(err))
		}
	}
}

// counted is what metrics are of.
func (ms *mirrors) counted() (out []mirror.Counted) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	for _, r := range ms.running {
		out = append(out, r)
	}
	return out
}

// close ends all mirrors.
func (ms *mirrors) close() {
	all := ms.running
	ms.set(nil)
	ms.end(all)
}
