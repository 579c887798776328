package repotest

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is the length at which a file surely has two subjects. Most have
// less than 400.
const maxLines = 600

func TestFileLength(t *testing.T) {
	for _, f := range goFiles(t) {
		if f.lines > maxLines {
			t.Errorf("%s has %d lines, over %d: a second subject means a second file", f.path, f.lines, maxLines)
		}
	}
}

func TestUnsafe(t *testing.T) {
	for _, f := range goFiles(t) {
		named := strings.HasSuffix(strings.TrimSuffix(f.path, "_test.go"), "_unsafe") ||
			strings.HasSuffix(f.path, "_unsafe.go")
		if slices.Contains(f.imports, "unsafe") != named {
			t.Errorf("%s: files that import unsafe, and no others, are called *_unsafe.go", f.path)
		}
	}
}

// skippers are the files that may skip a test. They fail instead when
// the environment says CI=true.
var skippers = map[string]string{
	"internal/netnstest/netnstest.go": "Need, NeedRoot: a tool or the rights are missing",
}

func TestSkips(t *testing.T) {
	for _, f := range goFiles(t) {
		if _, allowed := skippers[f.path]; allowed {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name) {
				t.Errorf("%s skips a test: ask netnstest.Need, which fails in CI", f.path)
			}
			return true
		})
	}
}

// topLevel is what may lie at the top of the repository.
var topLevel = []string{
	".ci", ".gitattributes", ".github", ".gitignore", ".golangci.yml",
	"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
	"bench", "cmd", "config", "deploy", "docs", "go.mod", "go.sum", "internal",
	"proxy", "ringcap", "scripts", "tools", "tproxyd.toml.example", "zcsend",
}

// needed is what a newcomer looks for.
var needed = []string{".ci/run", "LICENSE", "Makefile", "README.md", "docs/ARCHITECTURE.md", "tproxyd.toml.example"}

func TestLayout(t *testing.T) {
	names := repoFiles(t)
	tops := make(map[string]bool)
	for _, name := range names {
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	for _, top := range slices.Sorted(maps.Keys(tops)) {
		if !slices.Contains(topLevel, top) {
			t.Errorf("%s lies at the top of the repository; if it belongs there, add it to topLevel", top)
		}
	}
	for _, name := range needed {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// registries matches addresses of package registries and mirrors. Which one
// is used is a setting of the machine, not of this repository. It is written
// so that it does not match itself.
var registries = regexp.MustCompile(
	`(?i)\b(proxy|sum)\.golang` + `\.org\b|\bdeb\.debian` + `\.org\b|\bsecurity\.debian` + `\.org\b|` +
		`\bgoproxy\.(io|cn)\b|\bregistry\.npmjs` + `\.org\b|\bpypi` + `\.org\b|\bdocker` + `\.io\b|\bghcr` + `\.io\b`)

func TestNoRegistries(t *testing.T) {
	for _, name := range repoFiles(t) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 { // not text
			continue
		}
		for _, at := range registries.FindAllIndex(text, -1) {
			line := 1 + bytes.Count(text[:at[0]], []byte("\n"))
			t.Errorf("%s:%d names the registry %s", name, line, text[at[0]:at[1]])
		}
	}
}

// libraries are the modules that this one may need directly. A new one is
// judged first: what it does for us, and what would come along.
var libraries = []string{
	"github.com/BurntSushi/toml",
	"github.com/cespare/xxhash/v2",
	"github.com/cilium/ebpf",
	"github.com/coreos/go-systemd/v22",
	"github.com/gaissmai/bart",
	"github.com/google/go-cmp",
	"github.com/google/nftables",
	"github.com/gopacket/gopacket",
	"github.com/klauspost/compress",
	"github.com/pires/go-proxyproto",
	"github.com/prometheus/client_golang",
	"github.com/prometheus/client_model",
	"github.com/prometheus/common",
	"github.com/quic-go/quic-go",
	"github.com/rogpeppe/go-internal",
	"github.com/vishvananda/netlink",
	"github.com/vishvananda/netns",
	"go.uber.org/goleak",
	"go.uber.org/zap",
	"golang.org/x/net",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"golang.org/x/time",
}

func TestLibraries(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []struct{ Old struct{ Path string } }
		Tool    []struct{ Path string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(libraries, r.Path) {
			t.Errorf("go.mod requires %s; if it was judged well, add it to libraries", r.Path)
		}
	}
	for _, r := range mod.Replace {
		t.Errorf("go.mod replaces %s: nobody could go install this module", r.Old.Path)
	}
	for _, tool := range mod.Tool {
		t.Errorf("go.mod has the tool %s: tools have module files of their own, in tools", path.Base(tool.Path))
	}
}
