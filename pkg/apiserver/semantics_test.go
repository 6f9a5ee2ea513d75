package apiserver_test

import (
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/semantics.txt
var semanticsList string

//go:embed testdata/conformance.txt
var conformanceList string

// check is the test of one line of a list. It runs as a subtest of the line's
// id.
type check func(t *testing.T)

// TestSemantics runs the checks of testdata/semantics.txt, each of which has
// to have one.
func TestSemantics(t *testing.T) { runChecks(t, semanticsList, semantics()) }

// semantics are the checks by id. What rests on other packages is tested
// there, with simulated time and faults, and named here.
func semantics() map[string]check {
	return map[string]check{
		"RV-1": all(checkVersionsGrow, checkVersionsOfEveryKind),
		"RV-2": checkNothingChanged,
		"RV-3": checkVersionOfDeletion,
		"RV-4": all(checkFrozenReplica, elsewhere("../storage/cache", "TestFrozenReplica")),
		"RV-5": checkListVersions,
		"RV-6": checkReadAfterWriteElsewhere,
		"RV-7": all(checkReadsNeverGoBack, checkReadsAcrossLeaders),
		"RV-8": checkVersionAhead,
		"RV-9": all(checkVersionMalformed, checkVersionGone),
		"OC-1": all(checkStaleWrites, checkOneWinner),
		"OC-2": checkPreconditions,
		"OC-3": all(checkStalePatches, checkPatchesLoseNothing),
		"OC-4": all(checkTakenName, checkGeneratedNames),
		"OC-5": checkUnknownOutcome,
		"PG-1": all(checkPages, checkPagesUnderLoad, checkPagesAtRate),
		"PG-2": checkExpiredToken,
		"PG-3": checkTokens,
		"PG-4": all(checkPages, checkPagesWithSelector),
		"W-1":  all(checkReplay, elsewhere("../storage/cache", "TestExactReplay")),
		"W-2":  all(checkResume, checkListThenWatch, elsewhere("../storage/cache", "TestAddKindAcrossRepair")),
		"W-3":  checkWatchSelector,
		"W-4":  all(checkBookmarks, elsewhere("../storage/cache", "TestBookmarks")),
		"W-5":  all(checkInitialEvents, checkInitialEventsForms),
		"W-6":  checkVersionGone,
		"W-7":  all(checkWatchEnds, checkSlowWatcher, elsewhere("../storage/cache", "TestParkedWatcher")),
		"W-8":  all(checkSilentFeed, elsewhere("../storage/cache", "TestLag")),
		"W-9":  checkReplay,
		"W-10": all(checkCompaction, elsewhere("../storage/cache", "TestCompactionStorm")),
		"W-11": all(checkRestart, elsewhere("../storage/cache", "TestRestart")),

		"DEL-1": checkFinalizers,
		"DEL-2": all(checkFinalizers, checkPodDeletion),
		"DEL-3": checkPodDeletion,
		"DEL-4": all(checkPropagation, elsewhere("../controllers", "TestPropagationPolicies"), elsewhere("../controllers", "TestForegroundOwnerWaitsForItsPods")),
		"DEL-5": elsewhere("../controllers", "TestOwnersAreMatchedInFull"),
		"DEL-6": elsewhere("../controllers/gc", "TestDecide"),
		"DEL-7": all(checkNamespaceDeletion, elsewhere("../controllers", "TestNamespaceIsEmptiedAndGoes")),
		"DEL-8": checkDeleteCollection,
		"SSA-1": checkApplyOwnership,
		"SSA-2": all(checkApplyOwnership, checkNothingChanged),
		"SSA-3": all(checkApplyOfStatus, checkManagedFields, checkClientSideMigration, checkApplyThroughViews, checkApplyOfScale),
		"PT-1":  all(checkPatches, checkBombs),
		"ST-1":  all(checkStatus, checkGenerationOfEveryKind),
		"DR-1":  all(checkDryRun, checkDryRunOfEveryVerb),
		"FV-1":  all(checkFieldValidation, checkFieldValidationDoors),
		"ER-1":  checkErrors,
		"NG-1":  all(checkEveryKind, checkAccept),
	}
}

// runChecks runs the check of every id of a list, and fails for an id without
// check and for a check without id.
func runChecks(t *testing.T, list string, checks map[string]check) {
	listed := map[string]bool{}
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, title, _ := strings.Cut(line, " ")
		if title == "" || listed[id] {
			t.Errorf("the line %q needs a title and an id of its own", line)
		}
		listed[id] = true
		run, ok := checks[id]
		if !ok {
			t.Errorf("%s (%s) has no check", id, title)
			continue
		}
		t.Run(id, run)
	}
	for id := range checks {
		if !listed[id] {
			t.Errorf("the check %s is not in the list", id)
		}
	}
}

// all makes one check of several.
func all(checks ...check) check {
	return func(t *testing.T) {
		for _, c := range checks {
			c(t)
		}
	}
}

// elsewhere is the check of a test in another package, which runs there: that
// it exists.
func elsewhere(folder, name string) check {
	return func(t *testing.T) {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range parsed.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
					return
				}
			}
		}
		t.Errorf("%s has no test %s any more", folder, name)
	}
}
