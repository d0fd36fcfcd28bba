(()=>{
const find=document.getElementById("find"),kind=document.getElementById("kind"),
count=document.getElementById("count"),rows=[...document.querySelectorAll("#runs tbody tr")],
texts=rows.map(row=>row.textContent.toLowerCase());
const apply=()=>{
const words=find.value.toLowerCase().split(/\s+/).filter(Boolean);let shown=0;
rows.forEach((row,i)=>{
const badge=row.querySelector(".badge"),fits=words.every(word=>texts[i].includes(word))
&&(!kind.value||badge.textContent===kind.value||(kind.value==="-"&&row.classList.contains("x")));
row.hidden=!fits;shown+=fits;});
count.textContent=count.dataset.words.replace("{shown}",shown).replace("{total}",rows.length);
document.getElementById("none").hidden=shown>0;};
find.addEventListener("input",apply);kind.addEventListener("change",apply);
document.addEventListener("keydown",event=>{
if(event.key==="/"&&document.activeElement!==find){event.preventDefault();find.focus();}
if(event.key==="Escape"&&document.activeElement===find){find.value="";apply();}});
document.querySelector(".bar").hidden=false;apply();
})();
