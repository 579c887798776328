package repotest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/tproxyd/tproxyd"
	root   = "../.."
)

// goFile is one Go file of the repository.
type goFile struct {
	path    string // from the root, with slashes
	pkg     string // the directory of its package
	test    bool
	lines   int
	imports []string
	syntax  *ast.File
}

// goFiles parses every Go file of the module.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	for _, name := range repoFiles(t) {
		// Modules of their own, such as those in tools, have no Go files.
		if path.Ext(name) != ".go" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		f := goFile{
			path: name, pkg: path.Dir(name), syntax: syntax,
			test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(text, []byte("\n")),
		}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			f.imports = append(f.imports, imported)
		}
		files = append(files, f)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d Go files: the search has rotted", len(files))
	}
	return files
}

// repoFiles lists what git has, or would take.
func repoFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	// A clone that belongs to somebody else is no reason to read nothing.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var names []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// Git still lists what has been deleted and not yet committed.
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// packages groups files by directory.
func packages(files []goFile) map[string][]goFile {
	byPkg := make(map[string][]goFile)
	for _, f := range files {
		byPkg[f.pkg] = append(byPkg[f.pkg], f)
	}
	return byPkg
}

// under says whether a package is dir or below it.
func under(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// mayImport says whether code in one directory may import another of this
// module. The answer is the whole of the design:
//
//	cmd, bench, deploy  -> everything
//	config              -> nothing
//	proxy               -> internal
//	ringcap, zcsend     -> what is below themselves, internal/tpacket, internal/sys, internal/packet
//	zcsend/mirror       -> also ringcap
//	internal            -> internal
func mayImport(from, to string) bool {
	switch {
	case under(from, "cmd"), under(from, "bench"), under(from, "deploy"):
		return true
	case under(from, "config"):
		return false
	case under(from, "proxy"), under(from, "internal"):
		return under(to, "internal")
	case under(from, "ringcap") && under(to, "ringcap"), under(from, "zcsend") && under(to, "zcsend"):
		return true
	case under(from, "zcsend/mirror") && under(to, "ringcap"):
		return true
	case under(from, "ringcap"), under(from, "zcsend"):
		return under(to, "internal/tpacket") || under(to, "internal/sys") || under(to, "internal/packet")
	}
	return false
}

// inTests are directories that tests may import from anywhere.
var inTests = []string{"internal/golden", "internal/lab", "internal/netnstest"}

func TestImports(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, imported := range f.imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || to == f.pkg || f.test && slices.Contains(inTests, to) {
				continue
			}
			if !mayImport(f.pkg, to) {
				t.Errorf("%s imports %s: imports point from cmd down, see mayImport", f.path, to)
			}
		}
	}
}

// TestConfigLibraries keeps config a leaf: TOML and the standard library.
func TestConfigLibraries(t *testing.T) {
	for _, f := range goFiles(t) {
		if !under(f.pkg, "config") || f.test {
			continue
		}
		for _, imported := range f.imports {
			first, _, _ := strings.Cut(imported, "/")
			if strings.Contains(first, ".") && imported != "github.com/BurntSushi/toml" {
				t.Errorf("%s imports %s: config has TOML and the standard library only", f.path, imported)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for pkg, files := range packages(goFiles(t)) {
		documented := slices.IndexFunc(files, func(f goFile) bool { return f.syntax.Doc != nil })
		if documented < 0 {
			t.Errorf("package %s has no comment: say in doc.go what it is and what holds in it", pkg)
		}
	}
}

// noExample are packages without an Example, each for a reason.
var noExample = map[string]string{
	"cmd/tproxyd":       "a command; tproxyd demo is the example",
	"bench":             "a command; the README has the call",
	"deploy":            "nothing but tests",
	"internal/e2e":      "nothing but tests",
	"internal/repotest": "nothing but tests",
}

func TestExamples(t *testing.T) {
	byPkg := packages(goFiles(t))
	for pkg, files := range byPkg {
		has := slices.ContainsFunc(files, hasExample)
		reason, excused := noExample[pkg]
		switch {
		case !has && !excused:
			t.Errorf("package %s has no Example", pkg)
		case has && excused:
			t.Errorf("package %s has an Example; take it out of noExample (%s)", pkg, reason)
		}
	}
	for pkg := range noExample {
		if _, found := byPkg[pkg]; !found {
			t.Errorf("noExample names %s, which is no package", pkg)
		}
	}
}

func hasExample(f goFile) bool {
	return f.test && slices.ContainsFunc(f.syntax.Decls, func(d ast.Decl) bool {
		fn, ok := d.(*ast.FuncDecl)
		return ok && strings.HasPrefix(fn.Name.Name, "Example")
	})
}
