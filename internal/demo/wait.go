package demo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// final ends [eventually] at once.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// eventually tries until there is no error, ctx ends or the limit is over.
func eventually(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[final](err); ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("given up after %v: %w", limit, err)
		}
	}
}

func (d *demo) eventually(ctx context.Context, try func() error) error {
	return eventually(ctx, d.cfg.step, try)
}
