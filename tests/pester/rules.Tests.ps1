#Requires -Version 5.1
# Pester 5: what the engine's own syntax tree tells of the scripts and of their tests.

BeforeDiscovery {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $files = @('scripts', 'tests/pester' | ForEach-Object { Get-ChildItem -Path (Join-Path -Path $root -ChildPath $_) -Filter '*.ps1' } |
            ForEach-Object { @{ name = $_.Name; path = $_.FullName } })
}

BeforeAll {
    function Get-Finding {
        # What breaks a rule in a script's text: unreadable, a bare negative number, a comparison by culture.
        param([string]$Text)
        $errors = $null
        $tree = [System.Management.Automation.Language.Parser]::ParseInput($Text, [ref]$null, [ref]$errors)
        foreach ($one in $errors) { "unreadable: $($one.Message)" }
        foreach ($command in $tree.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true)) {
            foreach ($word in $command.CommandElements) {
                # Handed to a parameter without a type it arrives as text: it must stand in brackets.
                if ($word.Extent.Text -match '^-[0-9]') { "a bare negative number: $($command.Extent.Text)" }
            }
        }
        $ordered = '^[IC]?(ge|gt|le|lt)$'
        foreach ($one in $tree.FindAll({ $args[0] -is [System.Management.Automation.Language.BinaryExpressionAst] }, $true)) {
            $texts = @($one.Left, $one.Right | Where-Object { $_.StaticType -eq [string] })
            if (("$($one.Operator)" -match $ordered) -and ($texts.Count -gt 0)) { "text ordered by the culture: $($one.Extent.Text)" }
        }
        $own = @($tree.FindAll({ $args[0] -is [System.Management.Automation.Language.FunctionDefinitionAst] }, $true) | ForEach-Object { $_.Name })
        $verbs = @((Get-Verb).Verb)
        foreach ($name in $own) { if ($verbs -notcontains ($name -split '-')[0]) { "no approved verb: $name" } }
    }
}

Describe 'the rules' {
    It 'hold for <name>' -ForEach $files {
        @(Get-Finding -Text ([System.IO.File]::ReadAllText($path))) -join '; ' | Should -BeExactly ''
    }

    It 'notice a spoiled script: <spoiled>' -ForEach @(
        @{ spoiled = 'if ($x) {'; says = '^unreadable' }
        @{ spoiled = 'Get-Optional -Name a -Default -1'; says = '^a bare negative number' }
        @{ spoiled = 'if ($name -ge ''b'') { }'; says = '^text ordered by the culture' }
        @{ spoiled = 'if ("$a" -lt $b) { }'; says = '^text ordered by the culture' }
        @{ spoiled = 'function Do-It { }'; says = '^no approved verb' }
    ) {
        @(Get-Finding -Text $spoiled) -join '; ' | Should -Match $says
    }

    It 'let a number in brackets pass' {
        @(Get-Finding -Text 'Get-Optional -Default (-1); $x -ge -1') -join '; ' | Should -BeExactly ''
    }
}
