//! Sizes: a file that needs scrolling, a function that needs a map, a nest that needs a ladder.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::sources::Source;

/// Lines of a file at most.
const FILE_LINES_MAX: usize = 600;
/// Lines from which a file is named, so that it splits before it must.
const FILE_LINES_LONG: usize = 400;
/// Lines of a function at most, from `fn` to `}`.
const FUNCTION_LINES_MAX: usize = 70;
/// Blocks inside one another at most, the function's own not counted.
const NESTING_MAX: usize = 5;

/// Everything too large in one file.
pub(crate) fn judge(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let mut found = Vec::new();
    if lines > FILE_LINES_MAX {
        found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
    } else if lines > FILE_LINES_LONG {
        println!("{}: {lines} lines, above {FILE_LINES_LONG}", source.path);
    }
    match syn::parse_file(&source.text) {
        Ok(file) => {
            let mut functions = Functions { path: &source.path, found: &mut found };
            functions.visit_file(&file);
        }
        Err(error) => found.push(format!("{}: {error}", source.path)),
    }
    found
}

struct Functions<'a> {
    path: &'a str,
    found: &'a mut Vec<String>,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, from: usize, block: &syn::Block) {
        let lines = block.brace_token.span.close().end().line + 1 - from;
        if lines > FUNCTION_LINES_MAX {
            self.found.push(format!("{}:{from}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}", self.path));
        }
        let mut nesting = Nesting { depth: 0, deepest: 0 };
        nesting.visit_block(block);
        if nesting.deepest > NESTING_MAX {
            let deepest = nesting.deepest;
            self.found.push(format!("{}:{from}: fn {name} nests {deepest} deep, at most {NESTING_MAX}", self.path));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig.ident, function.sig.span().start().line, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.measure(&function.sig.ident, function.sig.span().start().line, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.sig.ident, function.sig.span().start().line, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Counts what is inside what: branches, loops, arms' bodies and closures' blocks.
struct Nesting {
    depth: usize,
    deepest: usize,
}

impl Nesting {
    fn inside(&mut self, visit: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        visit(self);
        self.depth -= 1;
    }
}

impl<'ast> Visit<'ast> for Nesting {
    fn visit_item_fn(&mut self, _: &'ast syn::ItemFn) {} // measured by itself

    fn visit_expr_if(&mut self, branch: &'ast syn::ExprIf) {
        self.visit_expr(&branch.cond);
        self.inside(|nesting| nesting.visit_block(&branch.then_branch));
        match branch.else_branch.as_ref().map(|(_, expr)| &**expr) {
            // `else if` is the same depth.
            Some(syn::Expr::If(other)) => self.visit_expr_if(other),
            Some(other) => self.inside(|nesting| nesting.visit_expr(other)),
            None => {}
        }
    }

    fn visit_expr_match(&mut self, choice: &'ast syn::ExprMatch) {
        self.inside(|nesting| visit::visit_expr_match(nesting, choice));
    }

    fn visit_expr_while(&mut self, repeat: &'ast syn::ExprWhile) {
        self.inside(|nesting| visit::visit_expr_while(nesting, repeat));
    }

    fn visit_expr_for_loop(&mut self, repeat: &'ast syn::ExprForLoop) {
        self.inside(|nesting| visit::visit_expr_for_loop(nesting, repeat));
    }

    fn visit_expr_loop(&mut self, repeat: &'ast syn::ExprLoop) {
        self.inside(|nesting| visit::visit_expr_loop(nesting, repeat));
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.inside(|nesting| visit::visit_expr_async(nesting, block));
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        match &*closure.body {
            syn::Expr::Block(_) => self.inside(|nesting| visit::visit_expr_closure(nesting, closure)),
            _ => visit::visit_expr_closure(self, closure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::sample;

    #[test]
    fn long_files_and_functions_are_seen() {
        let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
        assert_eq!(judge(&sample("src/x.rs", &long)).len(), 1);
        let method = format!("impl X {{ fn f() {{\n{}}} }}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
        assert_eq!(judge(&sample("src/x.rs", &method)).len(), 1);
        assert_eq!(judge(&sample("src/x.rs", &"\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
    }

    #[test]
    fn deep_nests_are_seen() {
        let nest = |depth: usize| format!("fn f() {{ {} {} }}", "if a {".repeat(depth), "}".repeat(depth));
        assert_eq!(judge(&sample("src/x.rs", &nest(NESTING_MAX))).len(), 0);
        assert_eq!(judge(&sample("src/x.rs", &nest(NESTING_MAX + 1))).len(), 1);
        let chain = "fn f() { if a {} else if b {} else if c {} else if d {} else if e {} else if g {} }";
        assert_eq!(judge(&sample("src/x.rs", chain)).len(), 0);
    }
}
